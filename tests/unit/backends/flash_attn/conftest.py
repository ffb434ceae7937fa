"""Stand-ins for the three versions of flash-attn: what their functions are documented to compute, by its formula.

They refuse what the library's own checks refuse, and read no key that no query of a row may see.
"""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import Any

import pytest
import torch


def _attend(q, k_cache, v_cache, length: int, table, scale: float, causal: bool, window, soft_cap: float):
    """One row: q [num_queries, num_heads, head_dim], caches [num_blocks, block_size, num_kv_heads, head_dim]."""
    left, right = window
    # How far each key lies behind each query, aligned to the bottom right.
    behind = torch.arange(length - len(q), length)[:, None] - torch.arange(length)
    seen = torch.ones_like(behind, dtype=torch.bool)
    if causal or right == 0:
        seen &= behind >= 0
    if left >= 0:
        seen &= behind <= left
    positions = seen.any(0).nonzero().squeeze(1)
    blocks, offsets = table[positions // k_cache.shape[1]].long(), positions % k_cache.shape[1]
    group = q.shape[1] // k_cache.shape[2]
    k, v = (cache[blocks, offsets].double().repeat_interleave(group, 1) for cache in (k_cache, v_cache))
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * scale
    if soft_cap > 0:
        scores = soft_cap * (scores / soft_cap).tanh()
    scores = scores.masked_fill(~seen[:, positions], float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).to(q.dtype)


def _check(q, k_cache, v_cache, table, lengths, num_rows: int) -> None:
    assert table.dtype == lengths.dtype == torch.int32
    assert table.stride(-1) == 1
    assert lengths.is_contiguous()
    assert table.shape[0] == num_rows
    assert k_cache.shape == v_cache.shape
    assert k_cache.dtype == v_cache.dtype == q.dtype
    assert q.stride(-1) == k_cache.stride(-1) == v_cache.stride(-1) == 1


class StandIn:
    """One version: its functions, and what they were called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def _batch(self, q, k_cache, v_cache, lengths, table, *how):
        assert lengths.shape == (q.shape[0],)
        _check(q, k_cache, v_cache, table, lengths, q.shape[0])
        return torch.stack(
            [
                _attend(row, k_cache, v_cache, int(length), blocks, *how)
                for row, length, blocks in zip(q, lengths, table, strict=True)
            ]
        )

    def _ragged(self, q, k_cache, v_cache, starts, lengths, max_query_len, table, *how):
        assert starts.dtype == torch.int32
        assert starts.is_contiguous()
        assert len(starts) == len(lengths) + 1
        _check(q, k_cache, v_cache, table, lengths, len(lengths))
        bounds = starts.tolist()
        assert bounds[0] == 0
        assert bounds[-1] == len(q)
        assert max_query_len >= max(stop - start for start, stop in itertools.pairwise(bounds))
        rows = torch.split(q, starts.diff().tolist())
        return torch.cat(
            [
                _attend(row, k_cache, v_cache, int(length), blocks, *how)
                for row, length, blocks in zip(rows, lengths, table, strict=True)
            ]
        )


class StandIn2(StandIn):
    """Version 2."""

    def flash_attn_varlen_func(
        self,
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p=0.0,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        softcap=0.0,
        alibi_slopes=None,
        deterministic=False,
        return_attn_probs=False,
        block_table=None,
    ):
        self.calls.append(("varlen", {"rows": len(cu_seqlens_q) - 1, "window": window_size}))
        assert k.shape[1] % 256 == 0
        assert cu_seqlens_k.dtype == torch.int32
        assert cu_seqlens_k.is_contiguous()
        assert cu_seqlens_k[0] == 0
        lengths = cu_seqlens_k.diff()
        assert max_seqlen_k >= lengths.max()
        how = (softmax_scale, causal, window_size, softcap)
        return self._ragged(q, k, v, cu_seqlens_q, lengths, max_seqlen_q, block_table, *how)

    def flash_attn_with_kvcache(
        self,
        q,
        k_cache,
        v_cache,
        k=None,
        v=None,
        rotary_cos=None,
        rotary_sin=None,
        cache_seqlens=None,
        cache_batch_idx=None,
        cache_leftpad=None,
        block_table=None,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        softcap=0.0,
        rotary_interleaved=True,
        alibi_slopes=None,
        num_splits=0,
        return_softmax_lse=False,
    ):
        self.calls.append(("kvcache", {"rows": len(q), "window": window_size}))
        assert k_cache.shape[1] % 256 == 0
        how = (softmax_scale, causal, window_size, softcap)
        return self._batch(q, k_cache, v_cache, cache_seqlens, block_table, *how)


class StandIn3(StandIn):
    """Version 3."""

    def flash_attn_with_kvcache(
        self,
        q,
        k_cache,
        v_cache,
        k=None,
        v=None,
        qv=None,
        rotary_cos=None,
        rotary_sin=None,
        cache_seqlens=None,
        cache_batch_idx=None,
        cache_leftpad=None,
        page_table=None,
        cu_seqlens_q=None,
        cu_seqlens_k_new=None,
        max_seqlen_q=None,
        rotary_seqlens=None,
        q_descale=None,
        k_descale=None,
        v_descale=None,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        attention_chunk=0,
        softcap=0.0,
        rotary_interleaved=True,
        scheduler_metadata=None,
        num_splits=0,
        pack_gqa=None,
        sm_margin=0,
        return_softmax_lse=False,
    ):
        self.calls.append(("kvcache", {"rows": len(cache_seqlens), "window": window_size}))
        how = (softmax_scale, causal, window_size, softcap)
        if cu_seqlens_q is None:
            return self._batch(q, k_cache, v_cache, cache_seqlens, page_table, *how)
        return self._ragged(q, k_cache, v_cache, cu_seqlens_q, cache_seqlens, max_seqlen_q, page_table, *how)


class StandIn4(StandIn):
    """Version 4: those arguments that come before others are passed by keyword here, too."""

    def flash_attn_varlen_func(
        self,
        q,
        k,
        v,
        qv=None,
        cu_seqlens_q=None,
        cu_seqlens_k=None,
        max_seqlen_q=None,
        max_seqlen_k=None,
        min_seqlen_k=None,
        seqused_q=None,
        seqused_k=None,
        gather_kv_indices=None,
        page_table=None,
        softmax_scale=None,
        causal=False,
        window_size=(None, None),
        learnable_sink=None,
        softcap=0.0,
        num_splits=1,
        pack_gqa=None,
        deterministic=False,
        return_lse=False,
    ):
        self.calls.append(("varlen", {"rows": len(seqused_k), "window": window_size}))
        assert cu_seqlens_k is None, "page_table is not supported with cu_seqlens_k"
        how = (softmax_scale, causal, tuple(-1 if size is None else size for size in window_size), softcap)
        if cu_seqlens_q is None:
            return self._batch(q, k, v, seqused_k, page_table, *how), None
        assert max_seqlen_k >= seqused_k.max()
        return self._ragged(q, k, v, cu_seqlens_q, seqused_k, max_seqlen_q, page_table, *how), None


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, StandIn]:
    """The stand-ins, by the backend's name, where imports find them."""
    standins: dict[str, StandIn] = {"flash_attn": StandIn2(), "flash_attn_3": StandIn3(), "flash_attn_4": StandIn4()}
    modules = {"flash_attn": "flash_attn", "flash_attn_3": "flash_attn_interface", "flash_attn_4": "flash_attn.cute"}
    for name, standin in standins.items():
        module = ModuleType(modules[name])
        for function in ("flash_attn_varlen_func", "flash_attn_with_kvcache"):
            if hasattr(standin, function):
                setattr(module, function, getattr(standin, function))
        monkeypatch.setitem(sys.modules, modules[name], module)
    return standins
