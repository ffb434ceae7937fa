"""Sliding windows through the scheduler: what is freed behind them, what still fits, and what can be hit."""

from __future__ import annotations

import pytest
from simulated_engine import SimulatedEngine
from vcore_policies.scheduling.priority import PriorityPolicy

from vcore.errors import RequestTooLargeError
from vcore.interfaces.step import SchedulerOutput
from vcore.scheduler.row_table import NEVER

WINDOWS = [(8,), (None, 8), (8, 3), (1, None, 8)]


def used(engine: SimulatedEngine) -> int:
    return engine.scheduler.stats().used_blocks


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("caching", [True, False])
def test_a_long_output_keeps_no_more_than_its_window(depth: int, caching: bool) -> None:
    engine = SimulatedEngine(windows=(8,), prefix_caching=caching, depth=depth, max_model_len=400)
    engine.add(range(5), 200)
    most = 0
    while engine.scheduler.has_unfinished:
        engine.step()
        most = max(most, used(engine))
    assert most == 3  # 8 tokens and the next touch no more blocks of 4
    engine.check_outputs()
    engine.check_idle()


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("caching", [True, False])
def test_a_prompt_runs_in_a_cache_that_could_not_hold_it_whole(windows: tuple[int | None, ...], caching: bool) -> None:
    """64 tokens are 16 columns; a window of 8 with chunks of 8 never holds more than 5."""
    num_blocks = 1 + sum(16 if window is None else 5 for window in windows)
    engine = SimulatedEngine(windows=windows, num_blocks=num_blocks, max_num_batched_tokens=8, prefix_caching=caching)
    engine.add(range(60), 5)
    engine.run()
    engine.check_outputs()
    engine.check_idle()
    assert engine.scheduler.stats().preemptions == 0


def test_a_request_that_can_never_fit_is_refused_with_the_numbers() -> None:
    engine = SimulatedEngine(windows=(None, 8), num_blocks=21, max_num_batched_tokens=8)
    engine.add(range(56), 5, request_id="fits")  # 15 columns, and 5 blocks of the window
    with pytest.raises(RequestTooLargeError, match=r"takes 21 cache blocks of 4 tokens; there are 20"):
        engine.add(range(56), 6, request_id="too long")
    engine.run()
    engine.check_outputs()


def test_the_largest_chunk_decides_what_a_window_needs() -> None:
    common = {"windows": (8,), "num_blocks": 7, "max_num_batched_tokens": 64}
    with pytest.raises(RequestTooLargeError, match="takes 16 cache blocks"):
        SimulatedEngine(**common).add(range(60), 5)  # type: ignore[arg-type]
    engine = SimulatedEngine(**common, long_prefill_threshold=8)  # type: ignore[arg-type]
    engine.add(range(60), 5)
    engine.run()
    engine.check_outputs()


def test_two_long_prompts_run_together_where_their_windows_fit() -> None:
    """Whole, each would take 16 blocks; 5 are reserved for each, so neither waits or is preempted."""
    engine = SimulatedEngine(windows=(8,), num_blocks=11, max_num_batched_tokens=8, prefix_caching=False)
    engine.add(range(60), 5, request_id="a")
    engine.add(range(100, 160), 5, request_id="b")
    together = 0
    while engine.scheduler.has_unfinished:
        engine.step()
        together = max(together, engine.scheduler.num_running)
    assert together == 2
    assert engine.scheduler.stats().preemptions == 0
    engine.check_outputs()


def test_a_third_waits_for_their_windows() -> None:
    engine = SimulatedEngine(windows=(8,), num_blocks=11, max_num_batched_tokens=24, long_prefill_threshold=8)
    for start in (0, 100, 200):
        engine.add(range(start, start + 60), 1)
    output = engine.launch()
    assert output is not None
    assert len(output.new_rows) == 2
    engine.collect()
    engine.run()
    assert engine.scheduler.stats().preemptions == 0


def test_entries_are_told_once_with_the_step_that_does_not_see_them_any_more() -> None:
    engine = SimulatedEngine(windows=(None, 6), max_num_batched_tokens=7)
    engine.add(range(30), 3)
    told: list[tuple[int, list[list[int]]]] = []
    while engine.scheduler.has_unfinished:
        engine.step()
        output = engine.schedules[-1]
        told.append((sum(o.num_total_tokens for o in engine.schedules[:-1]), output.passed_entries.tolist()))
    entries = [entry for _, step in told for entry in step]
    # The last query, token 31, sees from 26 on: columns 0 to 5 are behind it.
    assert entries == [[1, 0, column] for column in range(6)]
    for computed, step in told:
        assert all((column + 1) * 4 <= computed - 6 + 1 for _, _, column in step)


def test_models_without_windows_have_no_thresholds() -> None:
    engine = SimulatedEngine()
    engine.add(range(60), 5)
    engine.run()
    assert (engine.scheduler._table.pass_at == NEVER).all()
    assert not any(output.passed_entries.size for output in engine.schedules)


@pytest.mark.parametrize("windows", WINDOWS)
def test_what_is_behind_the_window_can_still_be_hit(windows: tuple[int | None, ...]) -> None:
    engine = SimulatedEngine(windows=windows, max_num_batched_tokens=8)
    engine.add(range(60), 5, request_id="a")
    while engine.scheduler.num_waiting or not engine.outputs["a"]:
        engine.step()
    engine.add([*range(20), 99, 98], request_id="b")  # its window lies far behind that of "a", which runs on
    engine.run()
    assert engine.cached["b"] == 20
    engine.check_outputs()


def test_a_hit_needs_only_the_blocks_that_the_next_token_sees() -> None:
    engine = SimulatedEngine(windows=(6,), num_blocks=200)
    engine.add(range(40), 1, request_id="a")
    engine.run()
    pool = engine.scheduler._kv.pool
    chain = engine.scheduler._kv.open((), 0).chain.extend(list(range(40)))
    pool.uncache([pool.by_hash[0][chain[column]] for column in (0, 1, 5, 8)])
    engine.add(range(40), 1, request_id="b")  # 7 and 6 serve token 32, which sees from 27 on
    engine.run()
    assert engine.cached["b"] == 32
    hit = next(new for output in engine.schedules for new in output.new_rows if new.request_id == "b")
    assert [bool(block_id) for block_id in hit.block_ids[0]] == [False] * 6 + [True] * 4
    engine.check_outputs()


def test_groups_narrow_a_hit_until_all_can_serve_it() -> None:
    engine = SimulatedEngine(windows=(None, 6, 10))
    engine.add(range(60), 1, request_id="a")
    engine.run()
    kv = engine.scheduler._kv
    chain = kv.open((), 0).chain.extend(list(range(60)))
    # At most 12 for all; the window of 6 makes it 10, that of 10 makes it 8, which the window of 6 makes 7.
    lost = {0: [12], 1: [10, 7], 2: [8]}
    for group, columns in lost.items():
        kv.pool.uncache([kv.pool.by_hash[group][chain[column]] for column in columns])
    view_of = engine.add([*range(60), 1], 1, request_id="b")
    assert engine.scheduler._lifecycle.requests[view_of].view.num_cached_tokens() == 28
    engine.run()
    assert engine.cached["b"] == 28
    engine.check_outputs()


def test_a_request_waits_for_the_window_that_is_filled_in_this_step() -> None:
    engine = SimulatedEngine(windows=(None, 6), max_num_batched_tokens=64)
    engine.add(range(20), request_id="a")
    engine.add([*range(20), 7], request_id="b")
    first = engine.launch()
    assert first is not None
    assert [new.request_id for new in first.new_rows] == ["a"]
    engine.collect()
    engine.run()
    assert engine.cached["b"] == 20
    engine.check_outputs()


@pytest.mark.parametrize("launched", [True, False])
def test_a_step_that_fails_leaves_the_tables_of_others_whole(launched: bool) -> None:
    """ "late" has a block to leave behind, but is not computed in the step that fails: no rank may miss it."""
    engine = SimulatedEngine(
        policy=PriorityPolicy(options=None, context=None),  # type: ignore[arg-type]
        windows=(4, None),
        block_size=1,
        max_num_batched_tokens=3,
        long_prefill_threshold=2,
    )
    engine.add(range(6), 20, request_id="late", priority=5)
    engine.add([40], 20, request_id="urgent", priority=0)
    while len(engine.outputs["late"]) < 3:
        engine.step()
    engine.add(range(20, 30), 20, request_id="more", priority=0)
    engine.step()  # one token for each of the three; in the next step the urgent ones have them all
    engine.fail_step(launched=launched)
    assert set(engine.finished) == {"urgent", "more"}
    engine.run()
    assert len(engine.outputs["late"]) == 20
    engine.check_outputs()
    engine.check_idle()


def test_blocks_of_tokens_that_became_known_late_are_found_though_they_are_behind() -> None:
    """With two steps in flight a block may be left behind in the first plan that knows its tokens."""
    engine = SimulatedEngine(windows=(1,), block_size=1, depth=2)
    engine.add(range(4), 9)
    engine.run()
    # No token sees another, so only the last of the prompt is computed; and the last of the output never is.
    assert engine.scheduler.stats().cached_blocks == 1 + 8


def test_a_row_in_error_leaves_nothing_to_be_found_of_what_it_passed() -> None:
    engine = SimulatedEngine(windows=(4,))
    engine.add(range(20), 20, request_id="a")
    for _ in range(6):
        engine.step()
    assert engine.scheduler.stats().cached_blocks > used(engine)
    output = engine.launch()
    assert output is not None
    _, sampled = engine.in_flight.pop()
    sampled.errors[int(output.rows[0])] = "NaN"
    engine.take(engine.scheduler.update(output, sampled))
    assert engine.scheduler.stats().cached_blocks == 0
    engine.check_idle()


def test_displacing_counts_the_blocks_of_every_group() -> None:
    policy = PriorityPolicy(options=None, context=None)  # type: ignore[arg-type]
    engine = SimulatedEngine(
        policy=policy, windows=(None, 8), num_blocks=19, max_num_batched_tokens=8, prefix_caching=False
    )
    engine.add(range(30), 10, request_id="late", priority=5)
    for _ in range(5):
        engine.step()
    assert used(engine) == 8 + 3
    engine.add(range(100, 130), 4, request_id="urgent", priority=0)
    engine.step()
    assert [row.request_id for row in engine.worker.rows.values()] == ["urgent"]
    engine.run()
    assert engine.finished["late"].num_preemptions == 1
    engine.check_outputs()
    engine.check_idle()


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_preempted_requests_give_what_they_give_alone(windows: tuple[int | None, ...], depth: int) -> None:
    num_blocks = 1 + sum(8 if window is None else 6 for window in windows)
    engine = SimulatedEngine(windows=windows, num_blocks=num_blocks, depth=depth, max_num_batched_tokens=8)
    for i in range(5):
        engine.add(range(i * 10, i * 10 + 3), 28)
    engine.run()
    assert engine.scheduler.stats().preemptions > 0
    engine.check_outputs()
    engine.check_idle()


def test_growth_names_a_block_for_each_group() -> None:
    engine = SimulatedEngine(windows=(None, 8, 8))
    engine.add(range(4), 6)
    engine.run()
    grown: list[SchedulerOutput] = [output for output in engine.schedules if output.grown_rows.size]
    assert [output.grown_block_ids.shape for output in grown] == [(1, 3)] * 2
    ids = [block_id for output in grown for block_id in output.grown_block_ids.flatten().tolist()]
    assert len(set(ids)) == 6
