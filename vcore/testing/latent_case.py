"""`LatentCase` and `RaggedCase`: random batches of latent attention, and what attention over them must give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from vcore.interfaces.attention import AttentionBackend, AttentionBackendContext, LatentSpec, RaggedBatch
from vcore.ops.latent_write import latent_write
from vcore.testing.paged_batch import PagedBatch

__all__ = ["LatentCase", "RaggedCase", "build_ragged_batch"]


class LatentCase(PagedBatch):
    """One step of some requests in the absorbed form, with random queries and latents.

    The numbers depend on the seed and the place in the request alone, not on block size or dtype. Blocks
    are scattered over the cache, and every slot that no token of the batch's contexts owns is NaN.
    """

    def __init__(
        self,
        spec: LatentSpec,
        requests: Sequence[tuple[int, int]],
        *,
        block_size: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        """Args:
        spec: the layer.
        requests: of each request, its tokens in this step and its tokens in all; those with one token first.
        block_size: tokens a cache block holds.
        dtype: of queries, latents and cache.
        device: where they are.
        seed: of the numbers and of the places of blocks.
        """
        super().__init__(requests, block_size=block_size, dtype=dtype, device=device, seed=seed)
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        self._contexts = [torch.randn(seq, spec.latent_dim, generator=generator).to(dtype) for seq in self.seq_lens]
        """Of each request, the latents of all its tokens: [seq_len, latent_dim]."""
        q = torch.randn(sum(self.query_lens), spec.num_heads, spec.latent_dim, generator=generator)
        self.q = q.to(device, dtype)
        """[num_tokens, num_heads, latent_dim]."""

    def run(
        self,
        attention: Callable[..., AttentionBackend],
        *,
        decodes_only: bool = False,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What a backend gives: [num_queries, num_heads, kv_lora_rank].

        Args:
            attention: what the backend plugin's `load` names.
            decodes_only: compute the decode rows alone.
            out: passed on to the layer.
        """
        backend = attention(options=None, context=self.context())
        layer = backend.build_latent_layer(self.spec)
        q = self.q[: self.metadata.num_decodes] if decodes_only else self.q
        return layer.forward_absorbed(q, self.cache(), backend.plan(self.metadata), out)

    def cache(self) -> torch.Tensor:
        """[num_blocks, block_size, latent_dim]: the contexts, this step's tokens among them."""
        num_blocks = 2 + max(block for table in self._tables for block in table)
        size = self._block_size
        cache = torch.full((num_blocks, size, self.spec.latent_dim), float("nan"), dtype=self._dtype)
        for latents, table in zip(self._contexts, self._tables, strict=True):
            slots = [table[position // size] * size + position % size for position in range(len(latents))]
            latent_write(latents, cache, torch.tensor(slots, dtype=torch.int64))
        return cache.to(self._device)

    def expected(self) -> torch.Tensor:
        """Attention by its formula, in float64 on the CPU: [num_tokens, num_heads, kv_lora_rank]."""
        queries = torch.split(self.q.cpu().double(), self.query_lens)
        rank = self.spec.kv_lora_rank
        parts = []
        for q, latents in zip(queries, self._contexts, strict=True):
            keys = latents.double()[:, None].expand(-1, self.spec.num_heads, -1)
            parts.append(_attend(q, keys, keys[..., :rank], self.spec.scale, causal=True)[0])
        return torch.cat(parts)


class RaggedCase:
    """Some requests in the up-projected form, with random queries, keys and values, none of them in a cache."""

    def __init__(
        self,
        spec: LatentSpec,
        requests: Sequence[tuple[int, int]],
        *,
        causal: bool,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        """Args:
        spec: the layer.
        requests: of each request, how many queries and how many keys it has.
        causal: as in `RaggedBatch`.
        dtype: of queries, keys and values.
        device: where they are.
        seed: of the numbers.
        """
        self.spec = spec
        self._device, self._dtype = torch.device(device), dtype
        self.query_lens = [queries for queries, _ in requests]
        self.kv_lens = [keys for _, keys in requests]
        generator = torch.Generator().manual_seed(seed)

        def random_heads(num_tokens: int, size: int) -> torch.Tensor:
            return torch.randn(num_tokens, spec.num_heads, size, generator=generator).to(device, dtype)

        self.q = random_heads(sum(self.query_lens), spec.qk_head_dim)
        """[num_queries, num_heads, qk_head_dim]."""
        self.k = random_heads(sum(self.kv_lens), spec.qk_head_dim)
        """[num_keys, num_heads, qk_head_dim]."""
        self.v = random_heads(sum(self.kv_lens), spec.qk_nope_head_dim + spec.v_head_dim)[..., spec.qk_nope_head_dim :]
        """[num_keys, num_heads, v_head_dim], a view with strides, as a joined projection gives."""
        self.batch = build_ragged_batch(self.query_lens, self.kv_lens, causal=causal, device=device)

    def run(
        self, attention: Callable[..., AttentionBackend], *, return_lse: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What a backend gives: [num_queries, num_heads, v_head_dim], and float32 [num_queries, num_heads] or None."""
        layer = attention(options=None, context=self.context()).build_latent_layer(self.spec)
        return layer.forward_ragged(self.q, self.k, self.v, self.batch, return_lse=return_lse)

    def context(self) -> AttentionBackendContext:
        """What a backend for this case is built from."""
        num_tokens = max(1, sum(self.query_lens))
        return AttentionBackendContext(
            device=self._device,
            dtype=self._dtype,
            block_size=16,
            max_num_seqs=len(self.query_lens),
            max_num_batched_tokens=num_tokens,
            max_model_len=max(num_tokens, *self.kv_lens),
        )

    def expected(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention by its formula and its LSE, in float64 on the CPU, shaped as what `run` gives."""
        queries = torch.split(self.q.cpu().double(), self.query_lens)
        keys, values = (torch.split(tensor.cpu().double(), self.kv_lens) for tensor in (self.k, self.v))
        parts = [
            _attend(q, k, v, self.spec.scale, self.batch.causal) for q, k, v in zip(queries, keys, values, strict=True)
        ]
        return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts])


def build_ragged_batch(
    query_lens: Sequence[int], kv_lens: Sequence[int], *, causal: bool, device: torch.device | str = "cpu"
) -> RaggedBatch:
    """The batch of requests with these numbers of queries and keys."""
    starts = [np.concatenate(([0], np.cumsum(lengths))).astype(np.int32) for lengths in (query_lens, kv_lens)]
    on_device = [torch.from_numpy(array.copy()).to(device) for array in starts]
    return RaggedBatch(
        num_requests=len(query_lens),
        query_start_loc=on_device[0],
        query_start_loc_cpu=starts[0],
        kv_start_loc=on_device[1],
        kv_start_loc_cpu=starts[1],
        max_query_len=max(query_lens),
        max_kv_len=max(kv_lens),
        causal=causal,
    )


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one request: [num_queries, num_heads, v_head_dim] and [num_queries, num_heads]."""
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    if causal:
        # How far each key lies behind each query: [num_queries, num_keys]
        behind = torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))
        scores = scores.masked_fill(behind < 0, float("-inf"))
    lse = scores.logsumexp(-1)  # [num_heads, num_queries]
    weights = (scores - lse.unsqueeze(-1)).exp().nan_to_num(0.0)  # a query without keys has none
    return torch.einsum("hqk,khd->qhd", weights, v), lse.transpose(0, 1)
