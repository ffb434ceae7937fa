"""What an attention backend implements, and what it is told in a step.

A backend is built once, builds one `AttentionLayer` for each layer of the model, plans once a step
from `AttentionMetadata`, and then computes layer after layer. It never learns of requests, policies
or the prefix cache: it sees block tables and lengths.

The cache of one layer is block-major, ``[num_blocks, 2, block_size, num_kv_heads, head_dim]``; index
0 of the second axis is K, 1 is V. Block 0 is null: padding points there, and nothing reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "AttentionBackend",
    "AttentionBackendContext",
    "AttentionContext",
    "AttentionLayer",
    "AttentionMetadata",
    "LayerSpec",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """What one attention layer needs of a backend."""

    num_heads: int
    """Query heads on this rank."""
    num_kv_heads: int
    """Key-value heads on this rank; divides `num_heads`."""
    head_dim: int
    """Of queries and keys."""
    v_head_dim: int | None = None
    """Of values; None means `head_dim`."""
    scale: float
    """Multiplies the scores before the softmax."""
    causal: bool = True
    sliding_window: int | None = None
    """A token sees itself and the ``sliding_window - 1`` tokens before it; None means all."""
    soft_cap: float | None = None
    """Scores become ``soft_cap * tanh(scores / soft_cap)``; None means they stay."""
    sinks: bool = False

    def required_features(self) -> frozenset[str]:
        """The names, as in `AttentionCapabilities.features`, of what a backend must list to serve this layer."""
        wanted = {
            "sliding_window": self.sliding_window is not None,
            "soft_cap": self.soft_cap is not None,
            "sinks": self.sinks,
            "non_causal": not self.causal,
        }
        return frozenset(name for name, needed in wanted.items() if needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionBackendContext:
    """What the core tells a backend when it builds it."""

    device: torch.device
    dtype: torch.dtype
    block_size: int
    """Tokens a cache block holds."""
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int


@dataclass(slots=True, kw_only=True)
class AttentionMetadata:
    """One step's batch, as attention sees it. Rows with a single query token (decode) come first.

    A ``_cpu`` field is a numpy array on the host; tensors are on the backend's device. Backends must
    not change any of it.
    """

    num_tokens: int
    """Query tokens in the batch."""
    num_requests: int
    num_decodes: int
    """How many leading rows have exactly one query token."""
    query_start_loc: torch.Tensor
    """int32 [num_requests + 1]: row i owns query tokens ``query_start_loc[i]:query_start_loc[i + 1]``."""
    query_start_loc_cpu: NDArray[np.int32]
    seq_lens: torch.Tensor
    """int32 [num_requests]: tokens of context, those of this step included."""
    seq_lens_cpu: NDArray[np.int32]
    """The same, or an upper bound."""
    max_query_len: int
    max_seq_len: int
    block_table: torch.Tensor
    """int32 [num_requests, max_blocks]: only the first ``ceil(seq_len / block_size)`` of a row are valid."""
    slot_mapping: torch.Tensor
    """int64 [num_tokens]: ``block_id * block_size + offset`` where each token's K and V are written."""


class AttentionLayer(ABC):
    """One layer's attention, as a backend computes it. It holds no cache and no step state."""

    @abstractmethod
    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer_cache: torch.Tensor,
        plan: object,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of this step's queries over all of their context.

        Args:
            q: [num_tokens, num_heads, head_dim].
            k: [num_tokens, num_kv_heads, head_dim]; already in the cache unless the backend fuses ``kv_write``.
            v: [num_tokens, num_kv_heads, v_head_dim]; likewise.
            layer_cache: [num_blocks, 2, block_size, num_kv_heads, head_dim]; not changed, unless ``kv_write`` is fused.
            plan: what `AttentionBackend.plan` returned for this step.
            out: where to write the result, if given.

        Returns:
            [num_tokens, num_heads, v_head_dim], dtype of q.
        """


class AttentionBackend(ABC):
    """An attention kernel library behind one contract (API 1.0).

    The plugin's `load` is called with ``options`` (its options model, or None) and ``context``
    (an `AttentionBackendContext`).
    """

    @abstractmethod
    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        """The layer for `spec`. The core has checked `spec` against the capabilities.

        Layers with equal specs may share one object.
        """

    @abstractmethod
    def plan(self, metadata: AttentionMetadata) -> object:
        """Prepare one step; the result is handed to each layer's `forward`. It must not outlive the step."""

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        """Reasons, beyond the capabilities, why this backend cannot serve; empty if it can. It only adds."""
        return ()


class AttentionContext:
    """What a model's `forward` gets as `attn`: the step's plan and the cache of every layer."""

    __slots__ = ("_block_offsets", "layer_caches", "plan", "slot_mapping")

    def __init__(self, plan: object, slot_mapping: torch.Tensor, layer_caches: Sequence[torch.Tensor]) -> None:
        self.plan = plan
        self.slot_mapping = slot_mapping
        self.layer_caches = layer_caches
        self._block_offsets: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def block_offsets(self, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`slot_mapping` as block ids and offsets into the block, int64 [num_tokens] each.

        Divided once a step and kept, since every layer writes to the same slots.
        """
        found = self._block_offsets.get(block_size)
        if found is None:
            slots = self.slot_mapping
            found = (slots // block_size, slots % block_size)
            self._block_offsets[block_size] = found
        return found
