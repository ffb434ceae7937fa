"""Latent attention of the torch_sdpa backend.

In the absorbed form, a step's latents are gathered once, for keys and values, and all heads are queries of one
key-value head. In the up-projected form, requests go through one by one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vcore.interfaces.attention import LatentAttentionLayer, LatentSpec, RaggedBatch
from vcore_backends.torch_sdpa.attend import attend, attend_with_lse
from vcore_backends.torch_sdpa.decode import run_buckets
from vcore_backends.torch_sdpa.masks import CausalMasks
from vcore_backends.torch_sdpa.plan import DecodeBucket, PrefillRow, StepPlan
from vcore_backends.torch_sdpa.query_blocks import QUERY_BLOCK, causal_blocks
from vcore_backends.torch_sdpa.scratch import Scratch, rows_of

__all__ = ["TorchSDPALatentLayer"]


class TorchSDPALatentLayer(LatentAttentionLayer):
    """One layer of latent attention."""

    def __init__(self, spec: LatentSpec, scratch: Scratch, masks: CausalMasks) -> None:
        self._spec = spec
        self._scratch = scratch
        self._masks = masks

    def forward_absorbed(
        self, q: torch.Tensor, layer_cache: torch.Tensor, plan: object, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert isinstance(plan, StepPlan)
        if out is None:
            out = q.new_empty((*q.shape[:2], self._spec.kv_lora_rank))
        cache_rows = rows_of(layer_cache, self._spec.latent_dim)
        run_buckets(plan.latent_decode(), q, out, lambda bucket, q, out: self._decode(bucket, q, cache_rows, out))
        if len(q) > plan.num_decodes:
            for row in plan.latent_prefill():
                self._prefill(row, q[row.start : row.stop], cache_rows, out[row.start : row.stop])
        return out

    def _decode(self, bucket: DecodeBucket, q: torch.Tensor, cache_rows: torch.Tensor, out: torch.Tensor) -> None:
        rows = slice(bucket.start, bucket.stop)
        latents = self._scratch.gather(cache_rows, bucket.index)
        latents = latents.view(bucket.stop - bucket.start, 1, bucket.width, -1)  # [num_rows, 1, width, latent_dim]
        # Values are whole latents, of which the end is dropped: fused kernels want them as wide as keys.
        result = attend(q[rows].unsqueeze(1), latents, latents, bucket.mask, scale=self._spec.scale)
        out[rows] = result[:, 0, :, : self._spec.kv_lora_rank]

    def _prefill(self, row: PrefillRow, q: torch.Tensor, cache_rows: torch.Tensor, out: torch.Tensor) -> None:
        assert row.index is not None
        latents = self._scratch.gather(cache_rows, row.index).view(1, 1, row.num_keys, -1)
        heads = q.transpose(0, 1).unsqueeze(0)  # [1, num_heads, num_queries, latent_dim]
        for queries, keys in causal_blocks(row.num_queries, row.num_keys):
            mask = self._masks.mask(queries.stop - queries.start, keys.stop - keys.start)
            if row.padding_mask is not None:
                mask = mask + row.padding_mask[:, keys]
            seen = latents[:, :, keys]
            result = attend(heads[:, :, queries], seen, seen, mask, scale=self._spec.scale)
            out[queries] = result[0, :, :, : self._spec.kv_lora_rank].transpose(0, 1)

    def forward_ragged(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: RaggedBatch, *, return_lse: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        out = q.new_zeros((*q.shape[:2], self._spec.v_head_dim))
        lse = q.new_full(q.shape[:2], float("-inf"), dtype=torch.float32) if return_lse else None
        for queries, keys in _requests(batch):
            self._attend_request(
                # Heads stand outside: [num_heads, num_queries or num_keys, features]
                q[queries].transpose(0, 1),
                k[keys].transpose(0, 1),
                v[keys].transpose(0, 1),
                batch.causal,
                out[queries],
                None if lse is None else lse[queries],
            )
        return out, lse

    def _attend_request(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        causal: bool,
        out: torch.Tensor,
        lse: torch.Tensor | None,
    ) -> None:
        scale, num_keys = self._spec.scale, k.shape[1]
        if lse is not None:
            k, v = k.float(), v.float()  # once, not a block
        blocks = causal_blocks(q.shape[1], num_keys) if causal else _seeing_all(q.shape[1], num_keys)
        for queries, keys in blocks:
            block_q, block_k, block_v = q[:, queries], k[:, keys], v[:, keys]
            mask = self._masks.mask(queries.stop - queries.start, keys.stop) if causal else None
            if lse is None:
                # [1, num_heads, num_queries, v_head_dim]
                result = attend(block_q[None], block_k[None], block_v[None], mask, scale=scale)[0]
            else:
                result, block_lse = attend_with_lse(block_q, block_k, block_v, mask, scale=scale)
                lse[queries] = block_lse.transpose(0, 1)
            out[queries] = result.transpose(0, 1)


def _requests(batch: RaggedBatch) -> Iterator[tuple[slice, slice]]:
    """Queries and keys of each request that has both."""
    query_starts: list[int] = batch.query_start_loc_cpu.tolist()
    kv_starts: list[int] = batch.kv_start_loc_cpu.tolist()
    for row in range(batch.num_requests):
        queries, keys = slice(*query_starts[row : row + 2]), slice(*kv_starts[row : row + 2])
        if queries.start < queries.stop and keys.start < keys.stop:
            yield queries, keys


def _seeing_all(num_queries: int, num_keys: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries that see all keys, so that scores take no more memory than in causal attention."""
    for start in range(0, num_queries, QUERY_BLOCK):
        yield slice(start, min(start + QUERY_BLOCK, num_queries)), slice(0, num_keys)
