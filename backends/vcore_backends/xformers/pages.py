"""`KVPages`: a layer's cache as two rows of pages, one of K and one of V, that one table of pages serves.

The library has one block table for keys and values, and rows of equal distance. In the cache, a block's V follows its
K. So the memory is read as pages of `block_size` rows, and V as the same memory, one page further on:

    memory    K of block 0 | V of block 0 | K of block 1 | V of block 1 | ...
    page      0              1              2              3                  of K
    page                     0              1              2                  of V
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vcore.errors import ConfigError

__all__ = ["KVPages"]


@dataclass(frozen=True, slots=True)
class KVPages:
    """Views of one layer's cache."""

    k: torch.Tensor
    """[num_rows, num_kv_heads, head_dim]."""
    v: torch.Tensor
    """The same, of the memory one page further on."""
    pages_per_block: int
    """Block i is page ``i * pages_per_block`` of both."""

    @classmethod
    def of(cls, layer_cache: torch.Tensor) -> KVPages:
        """Those of [num_blocks, 2, block_size, num_kv_heads, head_dim], pages contiguous.

        Raises:
            ConfigError: blocks do not begin at whole pages: they are shared with layers of larger ones.
        """
        num_blocks, _, block_size, num_kv_heads, head_dim = layer_cache.shape
        row = num_kv_heads * head_dim
        pages_per_block, rest = divmod(layer_cache.stride(0), block_size * row)
        if rest:
            raise ConfigError(
                f"xformers reads caches in pages of {block_size * row} numbers, but the blocks of this layer lie "
                f"{layer_cache.stride(0)} apart, which is no multiple: its memory is shared with layers of other "
                "shapes. Choose another attention.backend"
            )
        # Up to the last block's K, or its V: the memory may end there.
        shape = (((num_blocks - 1) * pages_per_block + 1) * block_size, num_kv_heads, head_dim)
        strides, start = (row, head_dim, 1), layer_cache.storage_offset()
        return cls(
            k=layer_cache.as_strided(shape, strides, start),
            v=layer_cache.as_strided(shape, strides, start + block_size * row),
            pages_per_block=pages_per_block,
        )
