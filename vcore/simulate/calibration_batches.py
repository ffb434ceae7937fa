"""`calibration_batches`: what an engine is made to compute so that its step times can be told for any traffic."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CalibrationBatch", "CalibrationRow", "EngineLimits", "calibration_batches"]

_CONTEXTS = (0, 256, 1024, 4096)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TAILS = (1, 8, 32, 128, 512, 2048)
_SHORT = 32
"""Most tokens of its own that a row has where others are what is measured."""
_MOST_TOKENS = 32_768
"""Of the contexts of one length together, so that no part of the grid takes long to set up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What an engine allows."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    """Of prompts; what is generated has room beside that."""
    cache_tokens: int
    prefix_caching: bool


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """A prompt: the beginning of a document, and some tokens that nobody else has."""

    document: int
    """Documents of different contexts are different, whatever their number."""
    context: int
    tail: int


@dataclass(frozen=True, slots=True)
class CalibrationBatch:
    """Prompts that come together, and one that comes when these generate."""

    context: int
    """The most that its rows have of documents."""
    rows: tuple[CalibrationRow, ...]
    late: CalibrationRow | None = None
    is_after_idleness: bool = False
    """Whether the engine had nothing to do for a while, as when a request comes alone: processors wake up slower."""


def calibration_batches(limits: EngineLimits, seed: int = 0) -> Iterator[CalibrationBatch]:
    """Batches from which each term of `StepTimeModel` can be told: what traffic does, as far as the limits allow.

    For each length of context first the documents themselves, in chunks as long as a step may be. Then, over contexts
    that are cached by now, prompts with a few to many tokens of their own; and more and more rows that generate after
    contexts of different lengths, as those of traffic are, among which such a prompt comes. Without a prefix cache the
    contexts are computed anew each time, and the prompts that come alone are left out.

    Prompts take the documents by turns: a conversation goes on when others have gone on in between, and its keys and
    values are no longer in the processor's caches.

    The tokens that prompts have of their own are drawn anew for each `seed`, a quarter fewer or more: traffic brings
    lengths that were not there before, and libraries compile for those.
    """
    most = min(limits.max_model_len, limits.cache_tokens // 2)
    for context in _contexts(most):
        rng = np.random.default_rng((seed, context))
        drawn = [max(1, int(tail * rng.uniform(0.75, 1.25))) for tail in _TAILS if context + tail <= most]
        yield from _over(context, [min(tail, most - context) for tail in drawn], limits)


def _contexts(most: int) -> list[int]:
    """Lengths of documents; where the longest does not fit, one that leaves room for long prompts after it."""
    longest = min(_CONTEXTS[-1], most - most // 8)
    found = [context for context in _CONTEXTS if 2 * context <= longest]
    return [*found, longest] if longest > found[-1] and longest < most else found


def _over(context: int, tails: Sequence[int], limits: EngineLimits) -> Iterator[CalibrationBatch]:
    most = min(limits.cache_tokens // 2, _MOST_TOKENS) // (context or _SHORT)
    num_documents = min(most, limits.max_num_seqs)
    if context:
        yield CalibrationBatch(context, tuple(CalibrationRow(number, context, 1) for number in range(num_documents)))
    documents = itertools.cycle(range(max(1, num_documents)))
    if limits.prefix_caching or not context:
        for tail in tails:
            row = CalibrationRow(next(documents), context, tail)
            yield CalibrationBatch(context, (row,), is_after_idleness=True)
    rng = np.random.default_rng(context)
    counts = [count for count in _ROWS if count <= num_documents]
    for number, count in enumerate(counts):
        rows = tuple(
            CalibrationRow(
                document=next(documents),
                context=int(context * rng.uniform(0.5, 1.0)),
                tail=int(rng.integers(1, min(_SHORT, tails[-1]) + 1)),
            )
            for _ in range(count)
        )
        for tail in tails[number % 3 :: 3]:
            yield CalibrationBatch(context, rows, CalibrationRow(next(documents), context, tail))
