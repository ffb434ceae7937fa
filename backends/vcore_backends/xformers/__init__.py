"""The xformers library over the paged cache: split-KV decode, and block-diagonal attention for longer rows."""
