"""`FlashAttention`: what the backend asks of one major version of the library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from vcore.interfaces.attention import LayerSpec
from vcore_backends.flash_attn.rows import PrefillRows

__all__ = ["FlashAttention", "Scores"]


@dataclass(frozen=True, slots=True)
class Scores:
    """How a layer's scores come about, in the library's own terms."""

    scale: float
    causal: bool
    """Aligned to the bottom right: the last query of a request sees all its keys."""
    window_left: int
    """How many keys before its own a query sees; -1: all."""
    soft_cap: float
    """0: none."""

    @property
    def window_right(self) -> int:
        """How many keys behind its own a query sees; -1: all. A window is of causal layers alone."""
        return -1 if self.window_left < 0 else 0

    @classmethod
    def of(cls, spec: LayerSpec, max_model_len: int) -> Scores:
        """Those of `spec`, where no context is longer than `max_model_len`."""
        window = spec.sliding_window
        # A window that no context outgrows is none: without one, version 2 packs the query heads of a KV head.
        limited = window is not None and window < max_model_len
        return cls(
            scale=spec.scale,
            causal=spec.causal,
            window_left=window - 1 if limited and window is not None else -1,
            soft_cap=spec.soft_cap or 0.0,
        )


class FlashAttention(ABC):
    """The paged kernels of one major version. Making one imports the library.

    K and V of a layer are passed as [num_blocks, block_size, num_kv_heads, head_dim] each, strided views of one cache:
    the kernels ask for contiguous heads alone.
    """

    sums_lengths: ClassVar[bool] = False
    """Whether prefill takes the lengths of contexts summed up."""

    @abstractmethod
    def decode(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        seq_lens: torch.Tensor,
        block_table: torch.Tensor,
        scores: Scores,
    ) -> torch.Tensor:
        """Attention of one query a row.

        Args:
            q: [num_rows, num_heads, head_dim].
            k_cache: the layer's keys.
            v_cache: its values.
            seq_lens: int32 [num_rows].
            block_table: int32 [num_rows, max_blocks].
            scores: of the layer.

        Returns:
            [num_rows, num_heads, head_dim], dtype of q.
        """

    @abstractmethod
    def prefill(
        self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, rows: PrefillRows, scores: Scores
    ) -> torch.Tensor:
        """Attention of the queries of `rows`, [num_queries, num_heads, head_dim]; the same of what it returns."""

    @classmethod
    def device_reason(cls, device: torch.device) -> str | None:
        """Why this version cannot run on a device of sufficient compute capability; None if it can."""
        return None
