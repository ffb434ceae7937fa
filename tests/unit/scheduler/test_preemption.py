"""Preemption: when, of whom, and that nothing is lost by it."""

from __future__ import annotations

import pytest
from simulated_engine import SimulatedEngine
from vcore_policies.scheduling.priority import PriorityPolicy

from vcore.interfaces.scheduling import RequestView, SchedulingPolicy


def priority_engine(**settings: object) -> SimulatedEngine:
    return SimulatedEngine(policy=PriorityPolicy(options=None, context=None), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("depth", [1, 2])
def test_blocks_run_out_and_every_request_still_gives_what_it_gives_alone(prefix_caching: bool, depth: int) -> None:
    engine = SimulatedEngine(num_blocks=12, prefix_caching=prefix_caching, depth=depth)
    for i in range(4):
        engine.add(range(i * 10, i * 10 + 6), 20)
    engine.run()
    assert engine.scheduler.stats().preemptions > 0
    engine.check_outputs()
    engine.check_idle()


def test_there_is_no_preemption_while_there_is_room() -> None:
    engine = SimulatedEngine(num_blocks=30)
    for i in range(4):
        engine.add(range(i * 10, i * 10 + 6), 20)
    engine.run()
    assert engine.scheduler.stats().preemptions == 0


def test_the_latest_to_arrive_is_the_victim_and_resumes_with_all_its_tokens() -> None:
    engine = SimulatedEngine(num_blocks=6, prefix_caching=False)
    engine.add(range(7), 12, request_id="a")
    engine.add(range(20, 27), 12, request_id="b")
    while engine.scheduler.num_running != 1:
        engine.step()
    given = list(engine.outputs["b"])
    assert given
    assert not engine.finished
    assert [row.request_id for row in engine.worker.rows.values()] == ["a"]
    engine.run()
    resumed = engine.schedules[-1]
    resumed = next(output for output in reversed(engine.schedules) if output.new_rows)
    assert resumed.new_rows[0].request_id == "b"
    assert resumed.new_rows[0].token_ids == [*range(20, 27), *given]
    assert resumed.new_rows[0].num_prompt_tokens == 7
    assert engine.finished["b"].num_preemptions == 1
    engine.check_outputs()


def test_what_a_preempted_request_computed_can_still_be_hit() -> None:
    engine = SimulatedEngine(num_blocks=7)
    engine.add(range(8), 8, request_id="a")
    engine.add(range(20, 28), 9, request_id="b")
    engine.run()
    resumed = [new for output in engine.schedules for new in output.new_rows if new.request_id == "b"][-1]
    assert engine.finished["b"].num_preemptions == 1
    assert resumed.num_computed_tokens > 0
    engine.check_outputs()


def test_a_victim_that_was_scheduled_in_this_step_is_taken_out_of_it() -> None:
    class FirstGoes(SchedulingPolicy):
        def waiting_key(self, request: RequestView) -> int:
            return request.arrival_index

        def pick_victim(self, running: list[RequestView]) -> int:  # type: ignore[override]
            return 0

    # Both need a block in the same step; "a" gets the last one, and loses it to "b".
    engine = SimulatedEngine(policy=FirstGoes(), num_blocks=6, prefix_caching=False)
    engine.add(range(8), 8, request_id="a")
    engine.add(range(20, 28), 8, request_id="b")
    engine.step()
    output = engine.launch()
    assert output is not None
    assert [engine.worker.rows[row].request_id for row in output.rows.tolist()] == ["b"]
    assert output.freed_rows == [0]
    assert output.grown_rows.tolist() == [1]
    engine.collect()
    engine.run()
    engine.check_outputs()
    engine.check_idle()


def test_a_request_that_finds_no_block_may_be_the_victim_itself() -> None:
    engine = SimulatedEngine(num_blocks=6, prefix_caching=False)
    engine.add(range(8), 8, request_id="a")
    engine.add(range(20, 28), 8, request_id="b")
    engine.step()
    output = engine.launch()
    assert output is not None
    assert [engine.worker.rows[row].request_id for row in output.rows.tolist()] == ["a"]
    engine.collect()
    engine.run()
    engine.check_outputs()


def test_an_urgent_request_displaces_a_less_urgent_one_only_without_room() -> None:
    engine = priority_engine(max_num_seqs=2)
    engine.add([1], 9, request_id="low", priority=5)
    engine.add([2], 9, request_id="mid", priority=3)
    engine.step()
    engine.add([3], 9, request_id="equal", priority=5)
    engine.step()
    assert engine.scheduler.stats().preemptions == 0
    engine.add([4], 9, request_id="high", priority=1)
    engine.step()
    assert {row.request_id for row in engine.worker.rows.values()} == {"mid", "high"}
    engine.run()
    assert {name: engine.finished[name].num_preemptions for name in ("low", "mid", "equal", "high")} == {
        "low": 1,
        "mid": 0,
        "equal": 0,
        "high": 0,
    }
    engine.check_outputs()


def test_a_displaced_request_comes_before_equals_that_arrived_later() -> None:
    engine = priority_engine(max_num_seqs=1)
    engine.add([1], 9, request_id="first", priority=5)
    engine.step()
    engine.add([2], 9, request_id="second", priority=5)
    engine.add([3], 2, request_id="high", priority=1)
    engine.run()
    order = [new.request_id for output in engine.schedules for new in output.new_rows]
    assert order == ["first", "high", "first", "second"]


def test_nobody_is_displaced_if_that_makes_too_little_room() -> None:
    engine = priority_engine(num_blocks=8, prefix_caching=False)
    engine.add(range(12), 4, request_id="high", priority=1)
    engine.add([1], 2, request_id="low", priority=5)
    engine.step()
    engine.add(range(20), 8, request_id="big", priority=2)
    engine.run()
    assert engine.scheduler.stats().preemptions == 0
    engine.check_outputs()


def test_as_many_are_displaced_as_it_takes() -> None:
    engine = priority_engine(num_blocks=8, prefix_caching=False)
    for i in range(3):
        engine.add(range(i * 10, i * 10 + 5), 4, request_id=f"low{i}", priority=5)
    engine.step()
    engine.add(range(40, 53), 4, request_id="high", priority=1)
    output = engine.launch()
    assert output is not None
    assert [engine.worker.rows[row].request_id for row in output.rows.tolist()] == ["low0", "high"]
    assert sorted(output.freed_rows) == [1, 2]
    engine.collect()
    engine.run()
    engine.check_outputs()
    engine.check_idle()


def test_what_a_displaced_request_was_to_fill_in_this_step_is_not_found() -> None:
    engine = priority_engine(max_num_seqs=1, long_prefill_threshold=8)
    engine.add(range(20), 2, request_id="low", priority=5)
    engine.step()
    engine.add([30], 2, request_id="high", priority=1)
    engine.launch()
    assert engine.scheduler.stats().cached_blocks == 2
    engine.collect()
    engine.run()
    engine.check_outputs()


def test_a_policy_that_always_displaces_does_not_stop_the_others_for_ever() -> None:
    class Bully(SchedulingPolicy):
        def waiting_key(self, request: RequestView) -> int:
            return -request.num_preemptions

        def should_displace(self, waiting: RequestView, victim: RequestView) -> bool:
            return True

    engine = SimulatedEngine(policy=Bully(), max_num_seqs=1, max_num_batched_tokens=4, prefix_caching=False)
    for i in range(3):
        engine.add(range(i * 30, i * 30 + 20), 3)
    engine.run(3000)
    engine.check_outputs()


def test_a_policy_without_any_order_of_victims_does_not_preempt_in_circles() -> None:
    class Turns(SchedulingPolicy):
        """Always the one that was preempted least, so that two large requests take turns."""

        def waiting_key(self, request: RequestView) -> int:
            return request.num_preemptions

        def pick_victim(self, running: list[RequestView]) -> int:  # type: ignore[override]
            return min(range(len(running)), key=lambda i: running[i].num_preemptions)

    engine = SimulatedEngine(policy=Turns(), num_blocks=12, max_num_batched_tokens=8, prefix_caching=False)
    for i in range(3):
        engine.add(range(i * 30, i * 30 + 24), 12)
    engine.run(3000)
    engine.check_outputs()


def test_nobody_is_admitted_in_the_step_that_preempts() -> None:
    class Youngest(SchedulingPolicy):
        def waiting_key(self, request: RequestView) -> int:
            return -request.arrival_index

    engine = SimulatedEngine(policy=Youngest(), num_blocks=6, max_num_seqs=2, prefix_caching=False)
    engine.add(range(8), 8, request_id="a")
    engine.add(range(20, 28), 8, request_id="b")
    engine.step()
    engine.add([1], 2, request_id="c")
    output = engine.launch()
    assert output is not None
    assert (output.freed_rows, output.new_rows) == ([0], [])
    engine.collect()
    engine.run()
    engine.check_outputs()


def test_a_preempted_request_does_not_come_back_to_be_the_next_victim() -> None:
    engine = SimulatedEngine(num_blocks=7, prefix_caching=False)
    for i, (length, max_tokens) in enumerate(((4, 6), (7, 12), (4, 6))):
        engine.add(range(i * 10, i * 10 + length), max_tokens)
    engine.run()
    assert engine.scheduler.stats().preemptions == 1


def test_a_policy_stays_in_charge_while_tokens_come_out() -> None:
    asked = 0

    class Counting(SchedulingPolicy):
        def waiting_key(self, request: RequestView) -> int:
            return request.arrival_index

        def pick_victim(self, running: list[RequestView]) -> int:  # type: ignore[override]
            nonlocal asked
            asked += 1
            return len(running) - 1

    engine = SimulatedEngine(policy=Counting(), num_blocks=10, max_num_seqs=3)
    for i in range(60):
        engine.add(range(i * 10, i * 10 + 8), 20)
    engine.run()
    assert asked == engine.scheduler.stats().preemptions > 2 * 3 + 8


def test_when_those_with_all_the_tokens_are_preempted_the_others_get_their_turn() -> None:
    class Yielding(SchedulingPolicy):
        """Holds prefill back for a while; its victim is the first."""

        cap: int | None = None

        def waiting_key(self, request: RequestView) -> int:
            return request.arrival_index

        def max_prefill_tokens(self, num_running: int, num_waiting: int) -> int | None:
            return self.cap

        def pick_victim(self, running: list[RequestView]) -> int:  # type: ignore[override]
            return 0

    policy = Yielding()
    engine = SimulatedEngine(policy=policy, num_blocks=6, max_num_batched_tokens=4, prefix_caching=False)
    engine.add(range(16), 2, request_id="long")
    engine.step()
    policy.cap = 0
    engine.add([50], 14, request_id="short")
    while len(engine.outputs["short"]) < 10:
        engine.step()
    policy.cap = None
    engine.step()
    output = engine.launch()
    assert output is not None
    assert [engine.worker.rows[row].request_id for row in output.rows.tolist()] == ["short"]
    assert output.freed_rows == [0]
    engine.collect()
    engine.run()
    engine.check_outputs()


def test_a_resumed_request_longer_than_a_step_is_chunked_even_without_chunked_prefill() -> None:
    engine = SimulatedEngine(
        num_blocks=12, max_num_batched_tokens=10, chunked_prefill=False, prefix_caching=False, depth=1
    )
    for i in range(3):
        engine.add(range(i * 10, i * 10 + 8), 20)
    engine.run()
    assert any(len(new.token_ids) > 10 for output in engine.schedules for new in output.new_rows)
    engine.check_outputs()


def test_a_preempted_request_keeps_its_tokens_in_flight() -> None:
    engine = priority_engine(max_num_seqs=1, depth=2)
    engine.add(range(4), 6, request_id="low", priority=5)
    engine.step()
    engine.step()
    engine.add([9], 2, request_id="high", priority=1)
    engine.run()
    assert engine.finished["low"].num_preemptions == 1
    engine.check_outputs()
    engine.check_idle()
