"""The triton_paged backend: a step's decode rows go to one kernel pair, its longer rows to another kernel.

A prefix that decode rows share may be attended before by a kernel of its own: see `shared_prefix`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vcore.errors import CapacityError
from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LayerSpec,
)
from vcore_backends.triton_paged.configs import decode_config, prefill_config
from vcore_backends.triton_paged.decode import decode_attention
from vcore_backends.triton_paged.options import TritonPagedOptions
from vcore_backends.triton_paged.prefill import prefill_attention
from vcore_backends.triton_paged.shared_prefix import SharedPrefix, attend_shared_prefix
from vcore_backends.triton_paged.workspace import Workspace

__all__ = ["TritonPagedBackend", "TritonPagedLayer", "TritonPagedPlan"]

_MOST_EARLY_ROWS = 16
"""Larger batches lose more to waiting kernels that hold places than starting takes: 7% of a step at 256 rows."""
_NUM_INTERPRETED_SMS = 2
"""Multiprocessors that the Triton interpreter stands for: few programs, yet enough to split a context."""


@dataclass(frozen=True, slots=True)
class TritonPagedPlan:
    """A step as the kernels take it. All lengths stay on the device, so it holds no copies and needs no sync."""

    metadata: AttentionMetadata
    decode_block_table: torch.Tensor
    """int32 [num_decodes, max_blocks]."""
    decode_seq_lens: torch.Tensor
    """int32 [num_decodes]."""
    num_prefill_tokens: int
    num_shared_blocks: torch.Tensor | None = None
    """int32 [1]: `AttentionMetadata.num_shared_blocks`, if the backend is to make use of it."""


class TritonPagedLayer(AttentionLayer):
    """One layer's attention. Layers of equal spec are one object."""

    def __init__(self, spec: LayerSpec, workspace: Workspace, *, num_sms: int, early: bool) -> None:
        self._spec = spec
        self._workspace = workspace
        self._num_sms = num_sms
        self._early = early

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer_cache: torch.Tensor,
        plan: object,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the contract says; K and V are read from the cache alone."""
        assert isinstance(plan, TritonPagedPlan)
        if out is None:
            out = torch.empty_like(q, memory_format=torch.contiguous_format)
        if plan.metadata.num_decodes:
            self._decode(q, layer_cache, plan, out)
        if plan.num_prefill_tokens:
            self._prefill(q, layer_cache, plan, out)
        return out

    def _decode(self, q: torch.Tensor, layer_cache: torch.Tensor, plan: TritonPagedPlan, out: torch.Tensor) -> None:
        spec, num_decodes = self._spec, plan.metadata.num_decodes
        config = decode_config(itemsize=q.dtype.itemsize, head_dim=spec.head_dim, num_requests=num_decodes)
        shared = self._attend_shared_prefix(q, layer_cache, plan, config.block_n)
        decode_attention(
            q[:num_decodes],
            layer_cache,
            plan.decode_block_table,
            plan.decode_seq_lens,
            out,
            self._workspace.partial,
            self._workspace.partial_lse,
            scale=spec.scale,
            sliding_window=spec.sliding_window,
            soft_cap=spec.soft_cap,
            config=config,
            num_sms=self._num_sms,
            # Nothing starts before the kernel of a shared prefix, which does not say when it may.
            early=self._early and num_decodes <= _MOST_EARLY_ROWS and shared is None,
            shared=shared,
        )

    def _attend_shared_prefix(
        self, q: torch.Tensor, layer_cache: torch.Tensor, plan: TritonPagedPlan, decode_block_n: int
    ) -> SharedPrefix | None:
        spec = self._spec
        if plan.num_shared_blocks is None or spec.sliding_window is not None:
            return None
        return attend_shared_prefix(
            q[: plan.metadata.num_decodes],
            layer_cache,
            plan.decode_block_table,
            plan.decode_seq_lens,
            plan.num_shared_blocks,
            self._workspace.shared,
            self._workspace.shared_lse,
            scale=spec.scale,
            soft_cap=spec.soft_cap,
            decode_block_n=decode_block_n,
            num_sms=self._num_sms,
        )

    def _prefill(self, q: torch.Tensor, layer_cache: torch.Tensor, plan: TritonPagedPlan, out: torch.Tensor) -> None:
        spec, metadata = self._spec, plan.metadata
        prefill_attention(
            q,
            layer_cache,
            metadata.block_table,
            metadata.query_start_loc,
            metadata.seq_lens,
            out,
            first_request=metadata.num_decodes,
            num_tokens=plan.num_prefill_tokens,
            scale=spec.scale,
            sliding_window=spec.sliding_window,
            soft_cap=spec.soft_cap,
            config=prefill_config(
                itemsize=q.dtype.itemsize,
                head_dim=spec.head_dim,
                block_size=layer_cache.shape[2],
                max_query_len=metadata.max_query_len,
            ),
        )


class TritonPagedBackend(AttentionBackend):
    """vcore's own Triton kernels on CUDA devices and, for tests, under the Triton interpreter on CPU."""

    def __init__(self, *, options: TritonPagedOptions | None, context: AttentionBackendContext) -> None:
        self._options = options or TritonPagedOptions()
        self._context = context
        self._layers: dict[LayerSpec, TritonPagedLayer] = {}
        self._workspaces: dict[tuple[int, int, int], Workspace] = {}
        if context.device.type == "cuda":
            properties = torch.cuda.get_device_properties(context.device)
            self._num_sms = properties.multi_processor_count
            self._early = properties.major >= 9
        else:
            self._num_sms = _NUM_INTERPRETED_SMS
            self._early = False

    def build_layer(self, spec: LayerSpec) -> TritonPagedLayer:
        """The layer for `spec`; allocates its workspace, which layers of the same shape share."""
        if spec not in self._layers:
            self._layers[spec] = TritonPagedLayer(spec, self._workspace(spec), num_sms=self._num_sms, early=self._early)
        return self._layers[spec]

    def _workspace(self, spec: LayerSpec) -> Workspace:
        shape = (spec.num_heads, spec.num_kv_heads, spec.head_dim)
        if shape not in self._workspaces:
            self._workspaces[shape] = Workspace(
                num_heads=spec.num_heads,
                num_kv_heads=spec.num_kv_heads,
                head_dim=spec.head_dim,
                dtype=self._context.dtype,
                device=self._context.device,
                max_num_seqs=self._context.max_num_seqs,
                num_sms=self._num_sms,
                shared_prefix=self._options.shared_prefix,
            )
        return self._workspaces[shape]

    def uses_shared_prefix(self, num_decodes: int, num_shared_blocks: int) -> bool:
        """If the option says so, for several rows and as many blocks as the other one asks for."""
        options = self._options
        return options.shared_prefix and num_decodes > 1 and num_shared_blocks >= options.min_shared_blocks

    def plan(self, metadata: AttentionMetadata) -> TritonPagedPlan:
        """Views of `metadata`: a captured plan stays right as long as the tensors behind it are refilled in place.

        Raises:
            CapacityError: more decode rows than the workspaces were made for.
        """
        num_decodes = metadata.num_decodes
        for workspace in self._workspaces.values():
            if num_decodes > workspace.max_requests:
                raise CapacityError(
                    f"a step of {num_decodes} decode rows; the workspace of triton_paged holds "
                    f"{workspace.max_requests}, for max_num_seqs {self._context.max_num_seqs}: "
                    "raise scheduler.max_num_seqs"
                )
        return TritonPagedPlan(
            metadata=metadata,
            decode_block_table=metadata.block_table[:num_decodes],
            decode_seq_lens=metadata.seq_lens[:num_decodes],
            # Each decode row is one token.
            num_prefill_tokens=metadata.num_tokens - num_decodes,
            num_shared_blocks=metadata.num_shared_blocks if self._options.shared_prefix and num_decodes > 1 else None,
        )

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        """Shapes that the kernels do not compute, and what the interpreter gets wrong."""
        reasons = [
            f"values of {spec.v_head_dim} dimensions beside keys of {spec.head_dim}; they must be equal"
            for spec in layers
            if spec.v_head_dim not in (None, spec.head_dim)
        ]
        reasons += [f"a scale of {spec.scale}; it must be positive" for spec in layers if spec.scale <= 0]
        if context.device.type == "cpu" and context.dtype == torch.bfloat16:
            reasons.append("the Triton interpreter computes bfloat16 wrongly; use float32 or float16")
        return tuple(dict.fromkeys(reasons))
