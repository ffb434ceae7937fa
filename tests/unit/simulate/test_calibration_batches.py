"""What an engine is calibrated with: within its limits, and all that the terms of the model must be told from."""

from __future__ import annotations

from itertools import pairwise

import pytest

from vcore.simulate.calibration_batches import EngineLimits, calibration_batches

LIMITS = EngineLimits(
    max_num_seqs=32, max_num_batched_tokens=512, max_model_len=8186, cache_tokens=19_184, prefix_caching=True
)


def rows_of(limits: EngineLimits, seed: int = 0) -> list[tuple[int, int]]:
    """Context and tail of each row of each batch."""
    return [
        (row.context, row.tail)
        for batch in calibration_batches(limits, seed)
        for row in (*batch.rows, *([] if batch.late is None else [batch.late]))
    ]


@pytest.mark.parametrize(("max_model_len", "cache_tokens"), [(8186, 19_184), (8186, 400), (300, 19_184), (2, 16)])
def test_batches_fit_the_engine(max_model_len: int, cache_tokens: int) -> None:
    limits = EngineLimits(
        max_num_seqs=32,
        max_num_batched_tokens=512,
        max_model_len=max_model_len,
        cache_tokens=cache_tokens,
        prefix_caching=True,
    )
    batches = list(calibration_batches(limits))
    assert batches
    assert all(context + tail <= max_model_len for context, tail in rows_of(limits))
    for batch in batches:
        assert len(batch.rows) <= limits.max_num_seqs
        # Each document is cached while the rows are computed.
        assert sum({row.document: batch.context for row in batch.rows}.values()) <= cache_tokens // 2


@pytest.mark.parametrize("seed", range(4))
def test_short_and_long_chunks_follow_short_and_long_contexts(seed: int) -> None:
    found = rows_of(LIMITS, seed)
    for context in (0, 256, 1024, 4096):
        tails = {tail for other, tail in found if other == context}
        for wanted in (1, 8, 32, 128, 512, 2048):
            assert any(0.7 * wanted <= tail <= 1.3 * wanted for tail in tails)


def test_each_pass_has_lengths_of_its_own() -> None:
    first, second = ({tail for _, tail in rows_of(LIMITS, seed) if tail > 64} for seed in (1, 2))
    assert len(first & second) < min(len(first), len(second)) / 4


def test_contexts_are_as_long_as_the_engine_allows() -> None:
    limits = EngineLimits(
        max_num_seqs=32, max_num_batched_tokens=512, max_model_len=4090, cache_tokens=19_184, prefix_caching=True
    )
    contexts = {batch.context for batch in calibration_batches(limits)}
    assert contexts == {0, 256, 1024, 3579}
    assert any(context == 3579 and 96 <= tail <= 160 for context, tail in rows_of(limits))


def test_rows_that_generate_together_have_contexts_of_different_lengths() -> None:
    for batch in calibration_batches(LIMITS):
        if batch.late is not None and batch.context and len(batch.rows) > 1:
            assert len({row.context + row.tail for row in batch.rows}) > 1
            assert len({row.document for row in batch.rows}) == len(batch.rows)
    assert max(len(batch.rows) for batch in calibration_batches(LIMITS) if batch.late is not None) == 32


def test_long_prompts_come_among_many_that_generate() -> None:
    among = {
        (len(batch.rows) > 1, batch.late.tail > 32)
        for batch in calibration_batches(LIMITS)
        if batch.late is not None and batch.context == 1024
    }
    assert among == {(False, False), (False, True), (True, False), (True, True)}


def test_without_a_prefix_cache_no_context_is_computed_for_a_short_prompt_alone() -> None:
    limits = EngineLimits(
        max_num_seqs=32, max_num_batched_tokens=512, max_model_len=8186, cache_tokens=19_184, prefix_caching=False
    )
    lone = [batch for batch in calibration_batches(limits) if len(batch.rows) == 1 and batch.late is None]
    assert {batch.context for batch in lone} == {0}


def test_documents_take_turns_so_that_none_is_in_the_caches_of_the_processor() -> None:
    lone = [batch for batch in calibration_batches(LIMITS) if batch.is_after_idleness and batch.context]
    assert lone
    for before, after in pairwise(lone):
        if before.context == after.context:
            assert before.rows[0].document != after.rows[0].document
    for batch in calibration_batches(LIMITS):
        if batch.late is not None and batch.context == 1024 and len(batch.rows) < 8:
            assert batch.late.document not in {row.document for row in batch.rows}


def test_what_comes_alone_comes_after_idleness() -> None:
    for batch in calibration_batches(LIMITS):
        assert batch.is_after_idleness == (len(batch.rows) == 1 and batch.late is None)
