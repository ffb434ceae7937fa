"""What an attention backend implements, and what it is told in a step.

A backend is built once, builds one `AttentionLayer` for each layer of the model, plans once a step
from `AttentionMetadata`, and then computes layer after layer. It never learns of requests, policies
or the prefix cache: it sees block tables and lengths.

The cache of one layer is block-major, ``[num_blocks, 2, block_size, num_kv_heads, head_dim]``; index
0 of the second axis is K, 1 is V. Block 0 is null: padding points there, and so do the entries of blocks
that a sliding window has left behind; nothing reads it.

Layers whose caches are alike form a group, and each group has its own block table. A backend plans once a
step a group. Layers of different groups may share memory, page by page; where their pages differ in size, a page is
contiguous, but the stride from one block to the next is larger than a page.

Latent attention (MLA) has a contract of its own beside that: `LatentSpec`, `LatentAttentionLayer`. Its cache is
``[num_blocks, block_size, kv_lora_rank + qk_rope_head_dim]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "Attend",
    "AttentionBackend",
    "AttentionBackendContext",
    "AttentionContext",
    "AttentionLayer",
    "AttentionMetadata",
    "GroupContext",
    "LatentAttentionLayer",
    "LatentSpec",
    "LayerSpec",
    "RaggedBatch",
]

T = TypeVar("T")


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
class LatentSpec:
    """What one layer of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1) needs of a backend."""

    num_heads: int
    """Query heads on this rank."""
    kv_lora_rank: int
    """Features of the latent that keys and values of all heads are projected from."""
    qk_nope_head_dim: int
    """Features of a query and key head without position."""
    qk_rope_head_dim: int
    """Features with position; the key's are shared by all heads."""
    v_head_dim: int
    scale: float
    """Multiplies the scores before the softmax."""

    @property
    def latent_dim(self) -> int:
        """Numbers that the cache holds a token."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def qk_head_dim(self) -> int:
        """Features of a query and key head in all."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


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
    sliding_window: int | None = None
    """`LayerSpec.sliding_window` of every layer of the group. Entries of `block_table` for blocks that lie wholly
    behind the window of a row's first query are 0."""
    num_shared_blocks: torch.Tensor | None = None
    """int32 [1]: how many leading columns of `block_table` hold the same blocks for all decode rows whose context is
    longer than those blocks. There may be others, such as rows that pad a captured batch: they share nothing. None
    unless `AttentionBackend.uses_shared_prefix` says yes, and for a group with a window. In a captured step it changes
    from replay to replay."""


@dataclass(slots=True, kw_only=True)
class RaggedBatch:
    """Queries and keys of several requests, one request after another, none of them in the cache."""

    num_requests: int
    query_start_loc: torch.Tensor
    """int32 [num_requests + 1]: request i owns queries ``query_start_loc[i]:query_start_loc[i + 1]``."""
    query_start_loc_cpu: NDArray[np.int32]
    kv_start_loc: torch.Tensor
    """int32 [num_requests + 1]: the same for keys and values. A request may have none."""
    kv_start_loc_cpu: NDArray[np.int32]
    max_query_len: int
    max_kv_len: int
    causal: bool
    """Whether the last query of a request sees all its keys, the one before all but the last, and so on
    (the mask is aligned to the bottom right). Otherwise each query sees every key of its request."""


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


class LatentAttentionLayer(ABC):
    """One layer's latent attention, as a backend computes it. It holds no cache, no weights and no step state."""

    @abstractmethod
    def forward_absorbed(
        self, q: torch.Tensor, layer_cache: torch.Tensor, plan: object, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attention in the space of the latent: of each query over all cached tokens of its request up to itself.

        Args:
            q: [num_queries, num_heads, latent_dim]: the query with the key projection absorbed into it, then its
                rotary part. `num_queries` is `AttentionMetadata.num_decodes`, the decode rows alone, or
                `num_tokens`, the whole batch.
            layer_cache: [num_blocks, block_size, latent_dim]; this step's tokens are in it. Not changed. Keys are
                whole rows of it, values their first `kv_lora_rank` numbers.
            plan: what `AttentionBackend.plan` returned for this step.
            out: where to write the result, if given.

        Returns:
            [num_queries, num_heads, kv_lora_rank], dtype of q; the value projection is the caller's.
        """

    @abstractmethod
    def forward_ragged(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: RaggedBatch, *, return_lse: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention over keys and values that were projected up from the latent.

        Args:
            q: [num_queries, num_heads, qk_head_dim].
            k: [num_keys, num_heads, qk_head_dim].
            v: [num_keys, num_heads, v_head_dim].
            batch: whose queries and keys are whose.
            return_lse: whether the second result is wanted.

        Returns:
            [num_queries, num_heads, v_head_dim], dtype of q, and float32 [num_queries, num_heads], the logarithm
            of the sum of the exponentials of the scores, or None. A query without keys has zeros, and -inf.
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

    def build_latent_layer(self, spec: LatentSpec) -> LatentAttentionLayer:
        """The layer for `spec`. Only a backend that lists ``mla`` in its capabilities is asked."""
        raise NotImplementedError(f"{type(self).__name__} lists 'mla' among its features, but builds no latent layers")

    @abstractmethod
    def plan(self, metadata: AttentionMetadata) -> object:
        """Prepare one step of one group; the result is handed to the `forward` of each layer in it.

        It must not outlive the step.
        """

    def uses_shared_prefix(self, num_decodes: int, num_shared_blocks: int) -> bool:
        """Whether `plan` wants `AttentionMetadata.num_shared_blocks` in a step.

        Asked in each step whose decode rows begin with the same blocks; where steps are captured, those for which
        the answer is yes are captured apart from the others.

        Args:
            num_decodes: decode rows of the step, more than one.
            num_shared_blocks: cache blocks that they have in common, at least one.
        """
        return False

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        """Reasons, beyond the capabilities, why this backend cannot serve; empty if it can. It only adds."""
        return ()

    @classmethod
    def unsupported_latent_reasons(
        cls, context: AttentionBackendContext, layers: Sequence[LatentSpec]
    ) -> Sequence[str]:
        """The same of layers of latent attention, to which the `head_dims` of the capabilities do not apply."""
        return ()


class GroupContext:
    """One step as the layers of one group see it."""

    __slots__ = ("_shared", "metadata", "plan", "slot_mapping")

    def __init__(self, plan: object, metadata: AttentionMetadata) -> None:
        """Args:
        plan: what the backend's `plan` gave for `metadata`.
        metadata: the step, with this group's block table and slots.
        """
        self.plan = plan
        self.metadata = metadata
        self.slot_mapping = metadata.slot_mapping
        self._shared: dict[Hashable, object] = {}

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, computed by the first layer that asks for `key` in this step, and kept for the others."""
        if key not in self._shared:
            self._shared[key] = make()
        return cast(T, self._shared[key])

    def block_offsets(self, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`slot_mapping` as block ids and offsets into the block, int64 [num_tokens] each."""

        def divide() -> tuple[torch.Tensor, torch.Tensor]:
            return self.slot_mapping // block_size, self.slot_mapping % block_size

        return self.shared(("block_offsets", block_size), divide)


Attend = Callable[..., torch.Tensor]
"""The part of a layer that `AttentionContext.run` computes: from the context, a tensor to write to or None, and inputs,
[num_tokens, ...] each, to [num_tokens, ...]. Given a tensor to write to, it returns that one."""


class AttentionContext:
    """What a model's `forward` gets as `attn`: of each layer that keeps a cache, its group's step and its cache."""

    __slots__ = ("layer_caches", "layer_groups")

    def __init__(self, layer_groups: Sequence[GroupContext], layer_caches: Sequence[torch.Tensor]) -> None:
        """Args:
        layer_groups: of each layer, in the order of `Model.kv_cache_specs`; layers of a group have the same object.
        layer_caches: of each layer, shaped by its spec.
        """
        self.layer_groups = layer_groups
        self.layer_caches = layer_caches

    def run(self, attend: Attend, *inputs: torch.Tensor) -> torch.Tensor:
        """What `attend` gives. A layer computes by this whatever looks at more of the step than `slot_mapping`.

        A step may be recorded on the device in pieces and replayed for others of as many tokens (segments). What is
        handed here is then computed anew in each step, between two pieces; all else is in the pieces, where a
        group's `plan` and `metadata` are out of reach.

        Args:
            attend: called with the step, where to write the result (or None), and `inputs`. Its result has a row a
                token of the step, and depends on its arguments alone.
            inputs: [num_tokens, ...] each; in a recorded step there are more rows than `attend` is given.
        """
        return attend(self, None, *inputs)
