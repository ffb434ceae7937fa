"""`AttentionCase`: a random batch over a paged cache, and what attention over it must give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vcore.interfaces.attention import AttentionBackend, LayerSpec
from vcore.ops.kv_write import kv_write
from vcore.testing.paged_batch import PagedBatch

__all__ = ["AttentionCase"]


class AttentionCase(PagedBatch):
    """One step of some requests, with random queries, keys and values.

    The numbers depend on the seed and the place in the request alone, not on block size or dtype. Blocks
    are scattered over the cache, and every slot that no token of the batch's contexts owns is NaN.
    """

    def __init__(
        self,
        spec: LayerSpec,
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
        dtype: of queries, keys, values and cache.
        device: where they are.
        seed: of the numbers and of the places of blocks.
        """
        super().__init__(requests, block_size=block_size, dtype=dtype, device=device, seed=seed)
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        kv_heads = (spec.num_kv_heads, spec.head_dim)
        self._contexts = [torch.randn(seq, 2, *kv_heads, generator=generator).to(dtype) for seq in self.seq_lens]
        """Of each request, K and V of all its tokens: [seq_len, 2, num_kv_heads, head_dim]."""
        q = torch.randn(sum(self.query_lens), spec.num_heads, spec.head_dim, generator=generator)
        self.q = q.to(device, dtype)
        """[num_tokens, num_heads, head_dim]."""
        new = [kv[len(kv) - query :] for kv, query in zip(self._contexts, self.query_lens, strict=True)]
        self.k, self.v = torch.cat(new).to(device).unbind(1)
        """This step's keys and values: [num_tokens, num_kv_heads, head_dim]."""

    def run(
        self,
        attention: Callable[..., AttentionBackend],
        *,
        fuses: frozenset[str] = frozenset(),
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What a backend gives: [num_tokens, num_heads, head_dim].

        Args:
            attention: what the backend plugin's `load` names.
            fuses: the backend's `AttentionCapabilities.fuses`.
            out: passed on to the layer.
        """
        backend = attention(options=None, context=self.context())
        layer = backend.build_layer(self.spec)
        layer_cache = self.cache(with_step="kv_write" not in fuses)
        plan = backend.plan(self.metadata)
        return layer.forward(self.q, self.k, self.v, layer_cache, plan, out)

    def cache(self, *, with_step: bool = True) -> torch.Tensor:
        """[num_blocks, 2, block_size, num_kv_heads, head_dim]: the contexts, `with_step` or without its tokens."""
        num_blocks = 2 + max(block for table in self._tables for block in table)
        spec, size = self.spec, self._block_size
        shape = (num_blocks, 2, size, spec.num_kv_heads, spec.head_dim)
        cache = torch.full(shape, float("nan"), dtype=self._dtype)
        for kv, table, query in zip(self._contexts, self._tables, self.query_lens, strict=True):
            stored = kv if with_step else kv[: len(kv) - query]
            slots = [table[position // size] * size + position % size for position in range(len(stored))]
            kv_write(stored[:, 0], stored[:, 1], cache, torch.tensor(slots, dtype=torch.int64))
        return cache.to(self._device)

    def expected(self) -> torch.Tensor:
        """Attention by its formula, in float64 on the CPU: [num_tokens, num_heads, head_dim]."""
        queries = torch.split(self.q.cpu().double(), self.query_lens)
        return torch.cat([self._attend(q, kv.double()) for q, kv in zip(queries, self._contexts, strict=True)])

    def _attend(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        spec = self.spec
        kv = kv.repeat_interleave(spec.num_heads // spec.num_kv_heads, dim=2)
        k, v = kv.unbind(1)  # [seq_len, num_heads, head_dim]
        scores = torch.einsum("qhd,khd->hqk", q, k) * spec.scale
        if spec.soft_cap is not None:
            scores = spec.soft_cap * (scores / spec.soft_cap).tanh()
        # How far each key lies behind each query: [num_queries, seq_len]
        behind = torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))
        if spec.causal:
            scores = scores.masked_fill(behind < 0, float("-inf"))
        if spec.sliding_window is not None:
            scores = scores.masked_fill(behind >= spec.sliding_window, float("-inf"))
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
