"""Choosing a token a row in two stages, without a sort and without a copy of the logits.

    stage 1    program (chunk, row)    its chunk's largest logit m, and the winner of (x - m) / T - log E
    stage 2    program (row)           the winner over the chunks, each moved by (m - largest m) / T

The noise is that of `vcore.runner.gumbel`, computed where it is used. Without noise the same stages find the
largest logit, as rows of temperature 0 do beside others.
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from vcore.ops.triton.early_start import begin_and_wait, can_start_early
from vcore.ops.triton.quick_jit import quick_jit

__all__ = ["choose_and_record", "greedy", "race"]

_GAMMA = tl.constexpr(0x9E3779B97F4A7C15)
_MIX_1 = tl.constexpr(0xBF58476D1CE4E5B9)
_MIX_2 = tl.constexpr(0x94D049BB133111EB)
_LARGEST_BELOW_ONE = tl.constexpr(1.0 - 2.0**-24)
_SCALE = tl.constexpr(2.0**-53)
_FEW_ROWS = 16
"""Up to here chunks are small, so that they occupy the whole device, and kernels start early. There are no more classes
than these two, for each of them is compiled, for every kind of choice."""
_ALIGNMENT = 4
"""Partial results begin at a multiple of so many numbers, 16 bytes, whatever the number of rows: Triton would compile
the kernels anew where they do not."""


@triton.jit
def _log_exponential(states):
    """`vcore.runner.gumbel.log_exponential` of uint64 states."""
    states = (states ^ (states >> 30)) * tl.full([], _MIX_1, tl.uint64)
    states = (states ^ (states >> 27)) * tl.full([], _MIX_2, tl.uint64)
    states = states ^ (states >> 31)
    v = ((states >> 11).to(tl.int64).to(tl.float32) + 0.5) * _SCALE
    v = tl.minimum(v, _LARGEST_BELOW_ONE)
    return libdevice.log(-libdevice.log1p(-v))


@quick_jit(do_not_specialize_on_alignment=["rows_ptr", "temperature_ptr", "keys_ptr"])
def _chunk_kernel(
    best_ptr,
    best_id_ptr,
    largest_ptr,
    logits_ptr,
    rows_ptr,
    temperature_ptr,
    keys_ptr,
    vocab_size,
    stride_row,
    stride_partial,
    HAS_ROWS: tl.constexpr,
    NOISE: tl.constexpr,
    CHUNK: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    chunk = tl.program_id(0)
    index = tl.program_id(1).to(tl.int64)
    row = tl.load(rows_ptr + index) if HAS_ROWS else index
    ids = chunk * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(logits_ptr + row * stride_row + ids, mask=ids < vocab_size, other=float("-inf")).to(tl.float32)
    invalid = tl.sum((x != x).to(tl.int32), 0) > 0
    largest = tl.max(tl.where(x != x, float("-inf"), x), 0)
    scores = x
    if NOISE:
        temperature = tl.load(temperature_ptr + index)
        if temperature > 0:
            # Nothing but masked tokens, or one raised to inf: subtracting would make NaN.
            shift = tl.where(tl.abs(largest) == float("inf"), 0.0, largest)
            key = tl.load(keys_ptr + index).to(tl.uint64, bitcast=True)
            states = key + (ids.to(tl.uint64) + 1) * tl.full([], _GAMMA, tl.uint64)
            scores = tl.div_rn(x - shift, temperature) - _log_exponential(states)
    scores = tl.where(scores != scores, float("-inf"), scores)
    best = tl.max(scores, 0)
    best_id = tl.min(tl.where(scores == best, ids, 2147483647), 0)
    place = index * stride_partial + chunk
    tl.store(best_ptr + place, tl.where(invalid, float("nan"), best))
    tl.store(best_id_ptr + place, best_id)
    tl.store(largest_ptr + place, largest)


@quick_jit(
    do_not_specialize_on_alignment=[
        "token_ids_ptr",
        "scores_ptr",
        "temperature_ptr",
        "rows_ptr",
        "last_token_ids_ptr",
    ]
)
def _merge_kernel(
    token_ids_ptr,
    scores_ptr,
    best_ptr,
    best_id_ptr,
    largest_ptr,
    temperature_ptr,
    rows_ptr,
    last_token_ids_ptr,
    num_chunks,
    stride_partial,
    NOISE: tl.constexpr,
    RECORD: tl.constexpr,
    CHUNKS_PAD: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    index = tl.program_id(0).to(tl.int64)
    chunks = tl.arange(0, CHUNKS_PAD)
    mask = chunks < num_chunks
    places = index * stride_partial + chunks
    best = tl.load(best_ptr + places, mask=mask, other=float("-inf"))
    best_id = tl.load(best_id_ptr + places, mask=mask, other=2147483647)
    invalid = tl.sum((best != best).to(tl.int32), 0) > 0
    scores = tl.where(best != best, float("-inf"), best)
    if NOISE:
        largest = tl.load(largest_ptr + places, mask=mask, other=float("-inf"))
        shifts = tl.where(tl.abs(largest) == float("inf"), 0.0, largest)
        overall = tl.max(largest, 0)
        overall = tl.where(tl.abs(overall) == float("inf"), 0.0, overall)
        temperature = tl.load(temperature_ptr + index)
        moved = scores + tl.div_rn(shifts - overall, tl.where(temperature > 0, temperature, 1.0))
        moved = tl.where(temperature > 0, moved, scores)
        scores = tl.where(tl.abs(scores) == float("inf"), scores, moved)
    score = tl.max(scores, 0)
    token_id = tl.min(tl.where(scores == score, best_id, 2147483647), 0).to(tl.int64)
    tl.store(token_ids_ptr + index, token_id)
    if RECORD:
        row = tl.load(rows_ptr + index)
        tl.store(last_token_ids_ptr + row, token_id, mask=row >= 0)
    tl.store(scores_ptr + index, tl.where(invalid, float("nan"), score).to(scores_ptr.dtype.element_ty))


def greedy(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `vcore.runner.choice.greedy`."""
    token_ids = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
    scores = torch.empty(logits.shape[0], dtype=logits.dtype, device=logits.device)
    _choose(logits, token_ids, scores)
    return token_ids, scores


def race(
    logits: torch.Tensor,
    rows: torch.Tensor,
    temperature: torch.Tensor,
    keys: torch.Tensor,
    offsets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `vcore.runner.choice.race`; `offsets` is not read."""
    token_ids = torch.empty_like(rows)
    scores = torch.empty(rows.shape[0], dtype=torch.float32, device=logits.device)
    _choose(logits, token_ids, scores, temperature, keys, rows=rows)
    return token_ids, scores


def choose_and_record(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    last_token_ids: torch.Tensor,
    token_ids: torch.Tensor,
    scores: torch.Tensor,
) -> None:
    """As `vcore.runner.choice.choose_and_record`."""
    _choose(logits, token_ids, scores, temperature, keys, record=(rows, last_token_ids))


def _choose(
    logits: torch.Tensor,
    token_ids: torch.Tensor,
    scores: torch.Tensor,
    temperature: torch.Tensor | None = None,
    keys: torch.Tensor | None = None,
    *,
    rows: torch.Tensor | None = None,
    record: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
) -> None:
    """Write `token_ids` and `scores` of all logits, or of `rows` of them, and `record` the tokens."""
    num_rows, vocab_size = scores.shape[0], logits.shape[1]
    if not num_rows:
        return
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    chunk = 1024 if num_rows <= _FEW_ROWS else 4096
    num_chunks = triton.cdiv(vocab_size, chunk)
    stride = triton.cdiv(num_chunks, _ALIGNMENT) * _ALIGNMENT
    partial = torch.empty((3, num_rows, stride), dtype=torch.float32, device=logits.device)
    best, best_id, largest = partial[0], partial[1].view(torch.int32), partial[2]
    noise = keys is not None
    early = num_rows <= _FEW_ROWS and can_start_early(logits.device)
    launch = {"launch_pdl": True} if early else {}
    _chunk_kernel[(num_chunks, num_rows)](
        best,
        best_id,
        largest,
        logits,
        rows,
        temperature,
        keys,
        vocab_size,
        logits.stride(0),
        stride,
        HAS_ROWS=rows is not None,
        NOISE=noise,
        CHUNK=chunk,
        EARLY=early,
        num_warps=chunk // 512 if noise else 4,
        **launch,
    )
    _merge_kernel[(num_rows,)](
        token_ids,
        scores,
        best,
        best_id,
        largest,
        temperature,
        *record,
        num_chunks,
        stride,
        NOISE=noise,
        RECORD=record[0] is not None,
        CHUNKS_PAD=triton.next_power_of_2(num_chunks),
        EARLY=early,
        num_warps=1 if num_chunks <= 256 else 4,
        **launch,
    )
