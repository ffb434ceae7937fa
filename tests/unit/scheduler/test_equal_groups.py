"""Groups that all keep everything, in a cache as many times as large, are scheduled exactly like one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_engine import SimulatedEngine

REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 3),  # steps before it comes
        st.lists(st.integers(0, 1), min_size=1, max_size=20),
        st.integers(1, 16),
    ),
    min_size=1,
    max_size=8,
)


def schedule(windows: tuple[int | None, ...], num_columns: int, requests: list[tuple[int, list[int], int]]) -> list:
    """What each step computes, of whom, and what was preempted by then."""
    engine = SimulatedEngine(
        windows=windows,
        num_blocks=1 + num_columns * len(windows),
        max_num_seqs=5,
        max_num_batched_tokens=12,
        max_model_len=60,
    )
    steps = []
    for wait, prompt, max_tokens in requests:
        for _ in range(wait):
            engine.step()
        engine.add(prompt, max_tokens)
    engine.run()
    engine.check_outputs()
    for output in engine.schedules:
        new = [(row.request_id, row.num_computed_tokens) for row in output.new_rows]
        steps.append((output.rows.tolist(), output.num_tokens.tolist(), new, output.freed_rows))
    return [*steps, engine.scheduler.stats().preemptions]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(REQUESTS, st.integers(9, 16))
def test_the_number_of_groups_changes_no_decision(requests: list[tuple[int, list[int], int]], num_columns: int) -> None:
    one = schedule((None,), num_columns, requests)
    for windows in ((None, None), (200, None, 300)):  # a window as long as any request is none
        assert schedule(windows, num_columns, requests) == one
