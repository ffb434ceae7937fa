"""`KVCacheSpec`: what one layer's cache of keys and values looks like, and how many bytes it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["FullAttentionSpec", "KVCacheSpec", "LatentCacheSpec", "SlidingWindowSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KVCacheSpec:
    """The cache of one layer. An open class: a subclass states a new shape of page."""

    dtype: torch.dtype

    @property
    def window(self) -> int | None:
        """How many tokens back from its own position a query looks, itself included; None for all.

        What lies behind the window of every token still to come is freed. A prefix hit needs only what the
        first token after it can see.
        """
        return None

    def page_shape(self, block_size: int) -> tuple[int, ...]:
        """The shape of one block of `block_size` tokens, without the leading axis of blocks."""
        raise NotImplementedError(f"{type(self).__name__} does not state its page shape")

    def page_bytes(self, block_size: int) -> int:
        """Bytes of one block of `block_size` tokens."""
        count = 1
        for extent in self.page_shape(block_size):
            count *= extent
        return count * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class FullAttentionSpec(KVCacheSpec):
    """Every token's K and V, kept as long as the request lives."""

    num_kv_heads: int
    head_dim: int

    def page_shape(self, block_size: int) -> tuple[int, ...]:
        """``(2, block_size, num_kv_heads, head_dim)``: K, then V."""
        return (2, block_size, self.num_kv_heads, self.head_dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindowSpec(FullAttentionSpec):
    """K and V of the last `sliding_window` tokens; what lies behind them is freed."""

    sliding_window: int

    @property
    def window(self) -> int:
        """`sliding_window`."""
        return self.sliding_window


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCacheSpec(KVCacheSpec):
    """The latent of multi-head latent attention: one vector a token, for keys and values of all heads."""

    latent_dim: int
    """``kv_lora_rank + qk_rope_head_dim``."""

    def page_shape(self, block_size: int) -> tuple[int, ...]:
        """``(block_size, latent_dim)``."""
        return (block_size, self.latent_dim)
