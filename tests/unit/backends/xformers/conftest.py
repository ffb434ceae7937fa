"""A stand-in for xformers 0.0.35: its masks, and what its two operators compute under them, by the formula.

The operators read lengths, starts and tables from the masks' tensors, as the kernels do, and no key that no query of a
row may see.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


@dataclass
class SeqInfo:
    """Where each row begins in a dimension."""

    seqstart: torch.Tensor
    max_seqlen: int
    seqstart_py: list[int]

    @classmethod
    def from_seqlens(cls, lengths):
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        return cls(torch.tensor(starts, dtype=torch.int32), max(lengths), starts)


@dataclass
class LengthInfo(SeqInfo):
    """The same, with lengths; of paged masks with starts, one past each row's last key."""

    seqlen: torch.Tensor
    seqlen_py: list[int]


@dataclass
class BlockDiagonalMask:
    q_seqinfo: SeqInfo
    k_seqinfo: SeqInfo
    causal: bool = False
    window: int | None = None

    def __post_init__(self):
        if self.causal:
            rows = zip(_lengths(self.q_seqinfo), _lengths(self.k_seqinfo), strict=True)
            assert all(num_keys >= num_queries for num_queries, num_keys in rows)

    @classmethod
    def from_seqlens(cls, q_seqlen, kv_seqlen=None, *, device=None):
        assert kv_seqlen is None or len(q_seqlen) == len(kv_seqlen)
        return cls(SeqInfo.from_seqlens(q_seqlen), SeqInfo.from_seqlens(kv_seqlen or q_seqlen))

    def make_causal_from_bottomright(self):
        return BlockDiagonalMask(self.q_seqinfo, self.k_seqinfo, causal=True)

    def make_local_attention_from_bottomright(self, window_size):
        assert window_size > 0
        return BlockDiagonalMask(self.q_seqinfo, self.k_seqinfo, causal=True, window=window_size)


@dataclass
class PagedBlockDiagonalPaddedKeysMask:
    q_seqinfo: SeqInfo
    k_seqinfo: LengthInfo
    block_tables: torch.Tensor
    page_size: int

    @classmethod
    def from_seqlens(cls, q_seqlen, kv_seqlen, block_tables, page_size, *, device=None):
        capacity = block_tables.shape[1] * page_size
        assert len(q_seqlen) == len(kv_seqlen)
        assert max(kv_seqlen) <= capacity
        starts = SeqInfo.from_seqlens([capacity] * len(kv_seqlen))
        lengths = torch.tensor(kv_seqlen, dtype=torch.int32)
        keys = LengthInfo(starts.seqstart, max(kv_seqlen), starts.seqstart_py, lengths, list(kv_seqlen))
        return cls(SeqInfo.from_seqlens(q_seqlen), keys, block_tables, page_size)


@dataclass
class PagedBlockDiagonalGappyKeysMask:
    q_seqinfo: SeqInfo
    k_seqinfo: LengthInfo
    block_tables: torch.Tensor
    page_size: int

    @classmethod
    def from_seqlens(cls, *arguments, **keywords):
        raise ValueError("len(seqstarts) should be len(seqlens)")  # as in that version


@dataclass
class BlockDiagonalGappyKeysMask:
    q_seqinfo: SeqInfo
    k_seqinfo: LengthInfo

    @classmethod
    def from_seqlens(cls, q_seqlen, kv_seqstarts, kv_seqlen, *, device=None):
        assert len(kv_seqstarts) == len(kv_seqlen) + 1
        starts, lengths = (torch.tensor(values, dtype=torch.int32) for values in (kv_seqstarts, kv_seqlen))
        keys = LengthInfo(starts, max(kv_seqlen), list(kv_seqstarts), lengths, list(kv_seqlen))
        return cls(SeqInfo.from_seqlens(q_seqlen), keys)

    def make_paged(self, block_tables, page_size, notional_padding, paged_type):
        assert paged_type is PagedBlockDiagonalGappyKeysMask
        assert notional_padding % page_size == 0
        keys, shifts = self.k_seqinfo, notional_padding * torch.arange(len(self.k_seqinfo.seqstart), dtype=torch.int32)
        starts = keys.seqstart - shifts
        starts_py = [start - row * notional_padding for row, start in enumerate(keys.seqstart_py[:-1])]
        assert all(0 <= start < block_tables.shape[1] * page_size for start in starts_py)
        ends = LengthInfo(starts, keys.max_seqlen, [*starts_py, -1], keys.seqlen + starts[:-1], keys.seqlen_py)
        return paged_type(self.q_seqinfo, ends, block_tables, page_size)


@dataclass
class Inputs:
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attn_bias: Any = None
    p: float = 0.0
    scale: float | None = None

    def check(self):
        """Shapes [1, tokens, num_kv_heads, group, head_dim] each; a group's heads in the same memory."""
        assert self.query.ndim == 5
        assert len(self.query) == len(self.key) == 1
        assert self.p == 0.0
        assert self.key.shape == self.value.shape
        assert self.key.shape[2:] == self.query.shape[2:]
        for tensor in (self.query, self.key, self.value):
            assert tensor.stride(-1) == 1
            assert tensor.shape[-1] % 8 == 0
            assert tensor.stride(-2) % 8 == 0
        assert self.key.shape[3] == 1 or self.key.stride(3) == self.value.stride(3) == 0


def _lengths(info: SeqInfo) -> list[int]:
    return [stop - start for start, stop in zip(info.seqstart_py, info.seqstart_py[1:], strict=False)]


def _attend(inputs: Inputs, queries: slice, rows: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Of `queries` over rows of K and V, int64 [num_keys], of which they see `seen`, bool [num_queries, num_keys]."""
    visible = seen.any(0)
    q, k, v = inputs.query[0, queries], inputs.key[0, rows[visible]], inputs.value[0, rows[visible]]
    scores = torch.einsum("qghd,kghd->ghqk", q.double(), k.double()) * inputs.scale
    scores = scores.masked_fill(~seen[:, visible], float("-inf"))
    return torch.einsum("ghqk,kghd->qghd", scores.softmax(-1), v.double()).to(q.dtype)


class SplitKV:
    """``triton_splitk.FwOp``; `compiled` holds what its kernel is compiled for."""

    def __init__(self) -> None:
        self.compiled: list[tuple[int, int]] = []

    def is_available(self) -> bool:
        return True

    def apply(self, inputs: Inputs, needs_gradient: bool):
        inputs.check()
        mask, keys = inputs.attn_bias, inputs.attn_bias.k_seqinfo
        num_rows, size = len(keys.seqlen), mask.page_size
        assert size % 64 == 0
        assert inputs.key.shape[1] % size == 0
        assert mask.q_seqinfo.max_seqlen == 1
        assert mask.q_seqinfo.seqstart_py[-1] == inputs.query.shape[1] == num_rows
        assert keys.seqlen.dtype == mask.block_tables.dtype == torch.int32
        assert keys.seqlen.stride(0) == 1
        assert mask.block_tables.shape[0] == num_rows
        self.compiled.append(tuple(mask.block_tables.shape))
        starts = torch.zeros(num_rows, dtype=torch.int32)
        if isinstance(mask, PagedBlockDiagonalGappyKeysMask):
            assert keys.seqstart.dtype == torch.int32
            assert keys.seqstart.stride(0) == 1
            starts = keys.seqstart
        out = torch.zeros_like(inputs.query).squeeze(0)
        for row in range(num_rows):
            positions = torch.arange(int(starts[row]), int(keys.seqlen[row]))
            if len(positions):
                places = mask.block_tables[row].long()[positions // size] * size + positions % size
                seen = torch.ones(1, len(positions), dtype=torch.bool)
                out[row] = _attend(inputs, slice(row, row + 1), places, seen)[0]
        return out.unsqueeze(1), None  # [num_rows, 1, num_kv_heads, group, head_dim]


class Flash:
    """``flash.FwOp``; `masks` holds what it was called with."""

    def __init__(self) -> None:
        self.masks: list[BlockDiagonalMask] = []
        self.available = True

    def is_available(self) -> bool:
        return self.available

    def apply(self, inputs: Inputs, needs_gradient: bool):
        inputs.check()
        mask = inputs.attn_bias
        self.masks.append(mask)
        q_starts, k_starts = mask.q_seqinfo.seqstart, mask.k_seqinfo.seqstart
        assert q_starts.dtype == k_starts.dtype == torch.int32
        assert len(q_starts) == len(k_starts)
        assert q_starts[-1] == inputs.query.shape[1]
        assert mask.k_seqinfo.max_seqlen >= k_starts.diff().max()
        assert k_starts[-1] <= inputs.key.shape[1]
        out = torch.empty_like(inputs.query)
        for row in range(len(q_starts) - 1):
            queries, keys = slice(*q_starts[row : row + 2].tolist()), torch.arange(*k_starts[row : row + 2].tolist())
            num_queries = queries.stop - queries.start
            behind = torch.arange(len(keys) - num_queries, len(keys))[:, None] - torch.arange(len(keys))
            seen = torch.ones_like(behind, dtype=torch.bool)
            if mask.causal:
                seen &= behind >= 0
            if mask.window is not None:
                seen &= behind < mask.window
            out[0, queries] = _attend(inputs, queries, keys, seen)
        return out, None


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The stand-in's operators, `split_kv` and `flash`, where imports find them."""
    operators = SimpleNamespace(split_kv=SplitKV(), flash=Flash())
    fmha = ModuleType("xformers.ops.fmha")
    masks = [BlockDiagonalMask, BlockDiagonalGappyKeysMask]
    masks += [PagedBlockDiagonalGappyKeysMask, PagedBlockDiagonalPaddedKeysMask]
    fmha.__dict__.update(
        Inputs=Inputs,
        attn_bias=SimpleNamespace(**{mask.__name__: mask for mask in masks}),
        flash=SimpleNamespace(FwOp=operators.flash),
        triton_splitk=SimpleNamespace(FwOp=operators.split_kv),
    )
    for name, module in {"xformers": ModuleType("xformers"), "xformers.ops": ModuleType("xformers.ops")}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "xformers.ops.fmha", fmha)
    return operators
