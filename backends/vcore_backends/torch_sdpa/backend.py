"""The torch_sdpa attention backend: blocks are gathered, then PyTorch's fused attention runs over them.

Decode rows go through in buckets of similar length; the others one by one. A prompt without a cached
prefix attends to its own K and V as they are. It runs on every device that torch runs on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LatentSpec,
    LayerSpec,
)
from vcore_backends.torch_sdpa.attend import attend
from vcore_backends.torch_sdpa.buckets import BucketLimits
from vcore_backends.torch_sdpa.decode import run_buckets
from vcore_backends.torch_sdpa.latent import TorchSDPALatentLayer
from vcore_backends.torch_sdpa.masks import CausalMasks
from vcore_backends.torch_sdpa.plan import DecodeBucket, PrefillRow, StepPlan, StepPlanner
from vcore_backends.torch_sdpa.query_blocks import QUERY_BLOCK, causal_blocks
from vcore_backends.torch_sdpa.scratch import Scratch, rows_of

__all__ = ["TorchSDPABackend"]

_MIB = 1 << 20


class TorchSDPALayer(AttentionLayer):
    """One layer: a gather and one fused attention for each bucket and each block of queries."""

    def __init__(self, spec: LayerSpec, scratch: Scratch, masks: CausalMasks) -> None:
        self._spec = spec
        self._scratch = scratch
        self._masks = masks
        self._num_groups = spec.num_heads // spec.num_kv_heads

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer_cache: torch.Tensor,
        plan: object,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert isinstance(plan, StepPlan)
        if out is None:
            out = q.new_empty(q.shape)
        spec, step = self._spec, plan.window(self._spec.sliding_window)
        cache_rows = rows_of(layer_cache, spec.num_kv_heads * spec.head_dim)
        run_buckets(step.decode, q, out, lambda bucket, q, out: self._decode(bucket, q, cache_rows, out))
        for row in step.prefill:
            self._prefill(row, q, k, v, cache_rows, out)
        return out

    def _decode(self, bucket: DecodeBucket, q: torch.Tensor, cache_rows: torch.Tensor, out: torch.Tensor) -> None:
        spec, num_rows = self._spec, bucket.stop - bucket.start
        # The heads of a group become the queries of one head: [num_rows, num_kv_heads, num_groups, head_dim]
        grouped = (num_rows, spec.num_kv_heads, self._num_groups, spec.head_dim)
        k, v = (
            self._scratch.gather(cache_rows, bucket.index)
            .view(2, num_rows, bucket.width, spec.num_kv_heads, spec.head_dim)
            .transpose(2, 3)  # [2, num_rows, num_kv_heads, width, head_dim]
        )
        queries = q[bucket.start : bucket.stop].view(grouped)
        result = attend(queries, k, v, bucket.mask, scale=spec.scale, soft_cap=spec.soft_cap)
        out[bucket.start : bucket.stop].view(grouped).copy_(result)

    def _prefill(
        self,
        row: PrefillRow,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache_rows: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        spec = self._spec
        queries = slice(row.start, row.stop)
        if row.index is None:
            k, v = k[queries], v[queries]
        else:
            k, v = self._scratch.gather(cache_rows, row.index).view(2, row.num_keys, spec.num_kv_heads, spec.head_dim)
        # Key-value heads stand outside, the heads of a group inside: [num_kv_heads, 1, num_keys, head_dim]
        k, v = k.transpose(0, 1).unsqueeze(1), v.transpose(0, 1).unsqueeze(1)
        grouped_q, grouped_out = (
            tensor[queries].view(-1, spec.num_kv_heads, self._num_groups, spec.head_dim).permute(1, 2, 0, 3)
            for tensor in (q, out)
        )  # [num_kv_heads, num_groups, num_queries, head_dim]
        window = spec.sliding_window
        sees_all_before = window is None or window >= row.num_keys
        if spec.causal and row.index is None and sees_all_before and spec.soft_cap is None:
            grouped_out.copy_(attend(grouped_q, k, v, None, scale=spec.scale, is_causal=True))
        elif spec.causal:
            self._prefill_blocks(row, grouped_q, k, v, grouped_out)
        else:
            mask = row.padding_mask
            grouped_out.copy_(attend(grouped_q, k, v, mask, scale=spec.scale, soft_cap=spec.soft_cap))

    def _prefill_blocks(
        self, row: PrefillRow, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Causal attention with a mask, some queries at a time, over the keys that any of them sees."""
        spec = self._spec
        for queries, keys in causal_blocks(row.num_queries, row.num_keys, spec.sliding_window):
            mask = self._masks.mask(queries.stop - queries.start, keys.stop - keys.start)
            if row.padding_mask is not None:
                mask = mask + row.padding_mask[:, keys]
            result = attend(
                q[:, :, queries], k[:, :, keys], v[:, :, keys], mask, scale=spec.scale, soft_cap=spec.soft_cap
            )
            out[:, :, queries].copy_(result)


class TorchSDPABackend(AttentionBackend):
    """Builds `TorchSDPALayer`s and plans their steps."""

    def __init__(self, *, options: None, context: AttentionBackendContext) -> None:
        self._context = context
        self._scratch = Scratch()
        self._masks: dict[int | None, CausalMasks] = {}
        self._bytes_per_key = 1
        self._planner = StepPlanner(
            block_size=context.block_size,
            dtype=context.dtype,
            device=context.device,
            exact_lengths=context.device.type == "cpu",
        )

    def build_layer(self, spec: LayerSpec) -> TorchSDPALayer:
        bytes_per_key = 2 * spec.num_kv_heads * spec.head_dim * self._context.dtype.itemsize
        self._bytes_per_key = max(self._bytes_per_key, bytes_per_key)
        return TorchSDPALayer(spec, self._scratch, self._causal_masks(spec.sliding_window))

    def build_latent_layer(self, spec: LatentSpec) -> TorchSDPALatentLayer:
        self._bytes_per_key = max(self._bytes_per_key, spec.latent_dim * self._context.dtype.itemsize)
        return TorchSDPALatentLayer(spec, self._scratch, self._causal_masks(None))

    def plan(self, metadata: AttentionMetadata) -> StepPlan:
        return self._planner.plan(metadata, self._bucket_limits())

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        reasons = []
        if any(layer.v_head_dim not in (None, layer.head_dim) for layer in layers):
            reasons.append("values must have as many features as keys: it reads both from one cache block")
        if any(not layer.causal and layer.sliding_window is not None for layer in layers):
            reasons.append("a sliding window is supported in causal layers only")
        return reasons

    def _causal_masks(self, window: int | None) -> CausalMasks:
        if window not in self._masks:
            self._masks[window] = CausalMasks(QUERY_BLOCK, window, self._context.dtype, self._context.device)
        return self._masks[window]

    def _bucket_limits(self) -> BucketLimits:
        # On a CPU (measured on 2 MiB to 32 MiB of cache) a gather pays while it stays in the cache, and a
        # bucket takes as long to launch as 256 KiB to copy. Accelerators want few and large launches.
        is_cpu = self._context.device.type == "cpu"
        max_bytes, padding_bytes = (4 * _MIB, _MIB // 4) if is_cpu else (256 * _MIB, 16 * _MIB)
        return BucketLimits(
            max_keys=max(1, max_bytes // self._bytes_per_key),
            max_padding=padding_bytes // self._bytes_per_key,
        )
