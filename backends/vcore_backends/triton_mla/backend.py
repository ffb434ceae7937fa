"""The triton_mla backend: latent attention over the paged cache in the absorbed form, ragged in the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch

from vcore.errors import UnsupportedModelError
from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionMetadata,
    LatentAttentionLayer,
    LatentSpec,
    LayerSpec,
    RaggedBatch,
)
from vcore.ops.triton.early_start import can_start_early
from vcore_backends.triton_mla.absorbed import absorbed_attention, queries_per_tile
from vcore_backends.triton_mla.configs import chunk_config, decode_config, ragged_config
from vcore_backends.triton_mla.query_tiles import QueryTiles
from vcore_backends.triton_mla.ragged import ragged_attention
from vcore_backends.triton_mla.workspace import Workspace

__all__ = ["TritonMLABackend", "TritonMLALayer", "TritonMLAPlan"]

_MOST_EARLY_ROWS = 16
"""Waiting kernels hold places that the running ones of larger batches need."""
_NUM_INTERPRETED_SMS = 3
"""Multiprocessors that the Triton interpreter stands for: few programs, yet enough to split a context."""


@dataclass(slots=True)
class TritonMLAPlan:
    """A step as the kernels take it. Of decode rows it holds views alone: all their lengths stay on the device."""

    metadata: AttentionMetadata
    decode_block_table: torch.Tensor
    """int32 [num_decodes, max_blocks]."""
    decode_seq_lens: torch.Tensor
    """int32 [num_decodes]."""
    _tiles: dict[int, QueryTiles] = field(default_factory=dict)

    def query_tiles(self, queries_per_tile: int) -> QueryTiles:
        """Of the rows that are no decode rows; cut for the first layer that asks."""
        if queries_per_tile not in self._tiles:
            self._tiles[queries_per_tile] = QueryTiles.cut(self.metadata, queries_per_tile)
        return self._tiles[queries_per_tile]


class TritonMLALayer(LatentAttentionLayer):
    """One layer's latent attention. Layers of equal spec are one object."""

    def __init__(self, spec: LatentSpec, workspace: Workspace, *, num_sms: int, early: bool) -> None:
        self._spec = spec
        self._workspace = workspace
        self._num_sms = num_sms
        self._early = early

    def forward_absorbed(
        self, q: torch.Tensor, layer_cache: torch.Tensor, plan: object, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As the contract says; two kernels for the decode rows, two for the others."""
        assert isinstance(plan, TritonMLAPlan)
        if out is None:
            out = q.new_empty((*q.shape[:2], self._spec.kv_lora_rank))
        num_decodes = plan.metadata.num_decodes
        if num_decodes:
            self._decode(q[:num_decodes], layer_cache, plan, out)
        if len(q) > num_decodes:
            self._chunks(q, layer_cache, plan, out)
        return out

    def _decode(self, q: torch.Tensor, layer_cache: torch.Tensor, plan: TritonMLAPlan, out: torch.Tensor) -> None:
        spec = self._spec
        absorbed_attention(
            q,
            layer_cache,
            plan.decode_block_table,
            plan.decode_seq_lens,
            None,
            out,
            self._workspace.partial,
            self._workspace.partial_lse,
            scale=spec.scale,
            rank=spec.kv_lora_rank,
            config=decode_config(itemsize=q.dtype.itemsize, num_heads=spec.num_heads, num_requests=len(q)),
            num_sms=self._num_sms,
            early=self._early and len(q) <= _MOST_EARLY_ROWS,
        )

    def _chunks(self, q: torch.Tensor, layer_cache: torch.Tensor, plan: TritonMLAPlan, out: torch.Tensor) -> None:
        spec = self._spec
        config = chunk_config(itemsize=q.dtype.itemsize)
        tiles = plan.query_tiles(queries_per_tile(config, spec.num_heads))
        absorbed_attention(
            q,
            layer_cache,
            plan.metadata.block_table,
            tiles.lengths,
            tiles,
            out,
            self._workspace.partial,
            self._workspace.partial_lse,
            scale=spec.scale,
            rank=spec.kv_lora_rank,
            config=config,
            num_sms=self._num_sms,
            early=False,  # a chunk's kernels run for longer than they take to start
        )

    def forward_ragged(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: RaggedBatch, *, return_lse: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As the contract says, in one kernel."""
        out = q.new_empty((*q.shape[:2], self._spec.v_head_dim))
        lse = q.new_empty(q.shape[:2], dtype=torch.float32) if return_lse else None
        if q.shape[0]:
            config = ragged_config(itemsize=q.dtype.itemsize, max_query_len=batch.max_query_len)
            ragged_attention(q, k, v, batch, out, lse, spec=self._spec, config=config)
        return out, lse


class TritonMLABackend(AttentionBackend):
    """vcore's own Triton kernels on CUDA devices and, for tests, under the Triton interpreter on CPU."""

    def __init__(self, *, options: None, context: AttentionBackendContext) -> None:
        self._context = context
        self._layers: dict[LatentSpec, TritonMLALayer] = {}
        self._workspaces: dict[tuple[int, int], Workspace] = {}
        self._early = can_start_early(context.device)
        self._num_sms = _NUM_INTERPRETED_SMS
        if context.device.type == "cuda":
            self._num_sms = torch.cuda.get_device_properties(context.device).multi_processor_count

    def build_layer(self, spec: LayerSpec) -> NoReturn:
        """Raises:
        UnsupportedModelError: always.
        """
        raise UnsupportedModelError(
            f"triton_mla computes latent attention alone, and the model has a layer of another kind: {spec}. "
            "Choose another attention.backend."
        )

    def build_latent_layer(self, spec: LatentSpec) -> TritonMLALayer:
        """The layer for `spec`; allocates its workspace, which layers of the same shape share."""
        if spec not in self._layers:
            workspace = self._workspace(spec)
            self._layers[spec] = TritonMLALayer(spec, workspace, num_sms=self._num_sms, early=self._early)
        return self._layers[spec]

    def _workspace(self, spec: LatentSpec) -> Workspace:
        shape = (spec.num_heads, spec.kv_lora_rank)
        if shape not in self._workspaces:
            self._workspaces[shape] = Workspace(
                spec,
                dtype=self._context.dtype,
                device=self._context.device,
                max_num_seqs=self._context.max_num_seqs,
                num_sms=self._num_sms,
            )
        return self._workspaces[shape]

    def plan(self, metadata: AttentionMetadata) -> TritonMLAPlan:
        """Views of `metadata`: a captured plan stays right as long as the tensors behind it are refilled in place."""
        return TritonMLAPlan(
            metadata=metadata,
            decode_block_table=metadata.block_table[: metadata.num_decodes],
            decode_seq_lens=metadata.seq_lens[: metadata.num_decodes],
        )

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        """Any layer of another kind."""
        return ("computes layers of latent attention alone",) if layers else ()

    @classmethod
    def unsupported_latent_reasons(
        cls, context: AttentionBackendContext, layers: Sequence[LatentSpec]
    ) -> Sequence[str]:
        """Scales that the kernels do not compute, and what the interpreter gets wrong."""
        reasons = [f"a scale of {spec.scale}; it must be positive" for spec in layers if spec.scale <= 0]
        if context.device.type == "cpu" and context.dtype == torch.bfloat16:
            reasons.append("the Triton interpreter computes bfloat16 wrongly; use float32 or float16")
        return tuple(dict.fromkeys(reasons))
