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
    LayerSpec,
)
from vcore_backends.torch_sdpa.attend import attend
from vcore_backends.torch_sdpa.buckets import BucketLimits
from vcore_backends.torch_sdpa.masks import CausalMasks
from vcore_backends.torch_sdpa.plan import DecodeBucket, PrefillRow, StepPlan, StepPlanner

__all__ = ["TorchSDPABackend"]

_QUERY_BLOCK = 128
"""Queries of a chunk that are computed at a time where they need a mask: more skip less of the masked half."""

_MIB = 1 << 20


class _Scratch:
    """Memory that gathered K and V are put into, used by one layer after another.

    Fresh memory for each gather would cost more in page faults than the copying itself.
    """

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None

    def take(self, num_rows: int, like: torch.Tensor) -> torch.Tensor:
        """[num_rows, like.shape[1]], valid until the next call."""
        size = num_rows * like.shape[1]
        memory = self._memory
        if memory is None or memory.numel() < size or memory.dtype != like.dtype:
            memory = self._memory = like.new_empty(1 << (size - 1).bit_length())
        return memory[:size].view(num_rows, like.shape[1])


class TorchSDPALayer(AttentionLayer):
    """One layer: a gather and one fused attention for each bucket and each block of queries."""

    def __init__(self, spec: LayerSpec, scratch: _Scratch, masks: CausalMasks) -> None:
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
        spec, step = self._spec, plan.by_window[self._spec.sliding_window]
        cache_rows = layer_cache.view(-1, spec.num_kv_heads * spec.head_dim)
        decode = step.decode
        if decode.order is None:
            for bucket in decode.buckets:
                self._decode(bucket, q, cache_rows, out)
        else:
            ordered_q = q[decode.order]
            ordered_out = torch.empty_like(ordered_q)
            for bucket in decode.buckets:
                self._decode(bucket, ordered_q, cache_rows, ordered_out)
            out.index_copy_(0, decode.order, ordered_out)
        for row in step.prefill:
            self._prefill(row, q, k, v, cache_rows, out)
        return out

    def _decode(self, bucket: DecodeBucket, q: torch.Tensor, cache_rows: torch.Tensor, out: torch.Tensor) -> None:
        spec, num_rows = self._spec, bucket.stop - bucket.start
        # The heads of a group become the queries of one head: [num_rows, num_kv_heads, num_groups, head_dim]
        grouped = (num_rows, spec.num_kv_heads, self._num_groups, spec.head_dim)
        k, v = (
            self._gather(bucket.index, cache_rows)
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
            k, v = self._gather(row.index, cache_rows).view(2, row.num_keys, spec.num_kv_heads, spec.head_dim)
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
        for start in range(0, row.num_queries, _QUERY_BLOCK):
            stop = min(start + _QUERY_BLOCK, row.num_queries)
            last_key = row.num_keys - row.num_queries + stop
            first_key = 0
            if spec.sliding_window is not None:
                first_key = max(0, last_key - (stop - start) - spec.sliding_window + 1)
            mask = self._masks.mask(stop - start, last_key - first_key)
            if row.padding_mask is not None:
                mask = mask + row.padding_mask[:, first_key:last_key]
            result = attend(
                q[:, :, start:stop],
                k[:, :, first_key:last_key],
                v[:, :, first_key:last_key],
                mask,
                scale=spec.scale,
                soft_cap=spec.soft_cap,
            )
            out[:, :, start:stop].copy_(result)

    def _gather(self, index: torch.Tensor, cache_rows: torch.Tensor) -> torch.Tensor:
        """[len(index), num_kv_heads * head_dim], valid until the next call."""
        gathered = self._scratch.take(index.shape[0], cache_rows)
        return torch.index_select(cache_rows, 0, index, out=gathered)


class TorchSDPABackend(AttentionBackend):
    """Builds `TorchSDPALayer`s and plans their steps."""

    def __init__(self, *, options: None, context: AttentionBackendContext) -> None:
        self._context = context
        self._scratch = _Scratch()
        self._masks: dict[int | None, CausalMasks] = {}
        self._bytes_per_key = 1
        self._planner = StepPlanner(
            block_size=context.block_size,
            dtype=context.dtype,
            device=context.device,
            exact_lengths=context.device.type == "cpu",
        )

    def build_layer(self, spec: LayerSpec) -> TorchSDPALayer:
        window, context = spec.sliding_window, self._context
        if window not in self._masks:
            self._masks[window] = CausalMasks(_QUERY_BLOCK, window, context.dtype, context.device)
        bytes_per_key = 2 * spec.num_kv_heads * spec.head_dim * context.dtype.itemsize
        self._bytes_per_key = max(self._bytes_per_key, bytes_per_key)
        return TorchSDPALayer(spec, self._scratch, self._masks[window])

    def plan(self, metadata: AttentionMetadata) -> StepPlan:
        return self._planner.plan(metadata, self._masks.keys(), self._bucket_limits())

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        reasons = []
        if any(layer.v_head_dim not in (None, layer.head_dim) for layer in layers):
            reasons.append("values must have as many features as keys: it reads both from one cache block")
        if any(not layer.causal and layer.sliding_window is not None for layer in layers):
            reasons.append("a sliding window is supported in causal layers only")
        return reasons

    def _bucket_limits(self) -> BucketLimits:
        # On a CPU (measured on 2 MiB to 32 MiB of cache) a gather pays while it stays in the cache, and a
        # bucket takes as long to launch as 256 KiB to copy. Accelerators want few and large launches.
        is_cpu = self._context.device.type == "cpu"
        max_bytes, padding_bytes = (4 * _MIB, _MIB // 4) if is_cpu else (256 * _MIB, 16 * _MIB)
        return BucketLimits(
            max_keys=max(1, max_bytes // self._bytes_per_key),
            max_padding=padding_bytes // self._bytes_per_key,
        )
