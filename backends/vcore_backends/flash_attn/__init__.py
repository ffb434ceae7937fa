"""The flash-attn library over the paged cache: versions 2, 3 and 4, each a backend of its own."""
