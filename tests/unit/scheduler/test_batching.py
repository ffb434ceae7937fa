"""What goes into a step: the budget, chunks, the order of requests, and what is refused on arrival."""

from __future__ import annotations

import pytest
from simulated_engine import SimulatedEngine

from vcore.errors import RequestError, RequestTooLargeError
from vcore.interfaces.scheduling import RequestView, SchedulingPolicy
from vcore.interfaces.step import SchedulerOutput
from vcore.scheduler import SchedulerSettings


class Arrival(SchedulingPolicy):
    """The core's own order, for tests to override."""

    def waiting_key(self, request: RequestView) -> int:
        return request.arrival_index


def counts(engine: SimulatedEngine, output: SchedulerOutput | None) -> dict[str, int]:
    """Tokens of each request in a step; call it before the step is collected."""
    assert output is not None
    rows = zip(output.rows.tolist(), output.num_tokens.tolist(), strict=True)
    return {engine.worker.rows[row].request_id: count for row, count in rows}


def test_nothing_to_do_is_none() -> None:
    engine = SimulatedEngine()
    assert engine.scheduler.schedule() is None
    assert not engine.scheduler.has_unfinished


def test_prompts_and_decodes_share_a_step_and_decodes_come_first() -> None:
    engine = SimulatedEngine()
    engine.add(range(5), request_id="a")
    engine.step()
    engine.add(range(10, 17), request_id="b")
    output = engine.launch()
    assert list(counts(engine, output).items()) == [("a", 1), ("b", 7)]
    assert output is not None
    assert output.num_decodes == 1


def test_a_long_prompt_is_computed_in_chunks_of_the_budget() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=10)
    engine.add(range(25), request_id="a")
    for expected, samples in ((10, False), (10, False), (5, True), (1, True)):
        output = engine.launch()
        assert counts(engine, output) == {"a": expected}
        assert output is not None
        assert output.samples.tolist() == [samples]
        engine.collect()


def test_what_running_requests_leave_of_the_budget_goes_to_the_next() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=10)
    engine.add(range(14), request_id="a")
    engine.add(range(20, 34), request_id="b")
    assert counts(engine, engine.launch()) == {"a": 10}
    engine.collect()
    assert counts(engine, engine.launch()) == {"a": 4, "b": 6}
    engine.collect()
    assert counts(engine, engine.launch()) == {"a": 1, "b": 8}


def test_a_chunk_of_one_token_stands_with_the_decodes_but_does_not_sample() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=8)
    engine.add(range(7), request_id="a")
    engine.add(range(20, 27), request_id="b")
    output = engine.launch()
    assert list(counts(engine, output).items()) == [("b", 1), ("a", 7)]
    assert output is not None
    assert output.samples.tolist() == [False, True]


def test_the_long_prefill_threshold_leaves_room_for_others() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=20, long_prefill_threshold=6)
    engine.add(range(15), request_id="a")
    engine.add(range(20, 25), request_id="b")
    assert counts(engine, engine.launch()) == {"a": 6, "b": 5}
    engine.collect()
    assert counts(engine, engine.launch()) == {"a": 6, "b": 1}


def test_without_chunked_prefill_a_prompt_waits_for_a_step_that_holds_it() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=10, chunked_prefill=False, long_prefill_threshold=2)
    engine.add(range(7), request_id="a")
    engine.add(range(20, 27), request_id="b")
    assert counts(engine, engine.launch()) == {"a": 7}
    engine.collect()
    assert counts(engine, engine.launch()) == {"a": 1, "b": 7}


def test_max_num_seqs_holds() -> None:
    engine = SimulatedEngine(max_num_seqs=2)
    for i in range(5):
        engine.add([i])
    engine.step()
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (2, 3)
    engine.run()
    engine.check_outputs()


def test_rows_are_reused_lowest_first() -> None:
    engine = SimulatedEngine(max_num_seqs=3)
    for name in "abc":
        engine.add([ord(name)], request_id=name)
    engine.step()
    engine.scheduler.abort(["b"])
    engine.scheduler.abort(["a"])
    engine.add([7], request_id="d")
    output = engine.launch()
    assert output is not None
    assert sorted(output.freed_rows) == [0, 1]
    assert [(new.request_id, new.row) for new in output.new_rows] == [("d", 0)]


def test_the_head_of_the_queue_is_not_passed_by_one_that_would_fit() -> None:
    engine = SimulatedEngine(num_blocks=8, prefix_caching=False)
    engine.add(range(12), 8, request_id="a")
    engine.add(range(20), 4, request_id="big")
    engine.add([1], 2, request_id="small")
    engine.step()
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (1, 2)
    engine.run()
    engine.check_outputs()
    assert engine.scheduler.stats().preemptions == 0


def test_a_prompt_that_is_still_computed_keeps_the_blocks_that_it_needs() -> None:
    engine = SimulatedEngine(num_blocks=9, long_prefill_threshold=4, prefix_caching=False)
    engine.add(range(24), 2, request_id="a")
    engine.step()
    engine.add(range(12), 2, request_id="b")
    engine.step()
    assert engine.scheduler.num_running == 1, "5 of 7 free blocks are for the rest of a's prompt, and b needs 3"
    engine.run()
    assert engine.scheduler.stats().preemptions == 0
    engine.check_outputs()


def test_a_cap_on_prefill_spares_decodes_and_never_stops_an_idle_engine() -> None:
    class Capped(Arrival):
        def max_prefill_tokens(self, num_running: int, num_waiting: int) -> int:
            return 3 if num_running else 0

    engine = SimulatedEngine(policy=Capped())
    engine.add(range(6), request_id="a")
    assert counts(engine, engine.launch()) == {"a": 6}
    engine.collect()
    engine.add(range(20, 30), request_id="b")
    engine.add(range(40, 50), request_id="c")
    for _ in range(3):
        assert counts(engine, engine.launch()) == {"a": 1, "b": 3}
        engine.collect()
    assert counts(engine, engine.launch()) == {"a": 1, "b": 1, "c": 3}


def test_with_steps_in_flight_no_row_is_computed_beyond_its_last_token() -> None:
    engine = SimulatedEngine(depth=3)
    engine.add(range(5), 2)
    engine.launch()
    engine.launch()
    assert engine.launch() is None
    engine.run()
    engine.check_outputs()


def test_running_requests_are_ordered_only_when_the_budget_is_short() -> None:
    asked: list[list[str]] = []

    class Reversed(Arrival):
        def order_running(self, running: list[RequestView], now: float) -> list[int]:  # type: ignore[override]
            asked.append([request.request_id for request in running])
            return list(reversed(range(len(running))))

    engine = SimulatedEngine(policy=Reversed(), max_num_batched_tokens=8, max_model_len=200)
    engine.add(range(2), request_id="a")
    engine.add(range(10, 30), request_id="b")
    engine.step()
    assert asked == []
    assert counts(engine, engine.launch()) == {"b": 8}
    assert asked == [["a", "b"]]


def test_a_ranking_policy_orders_the_window_and_the_rest_waits_behind_it() -> None:
    class Longest(Arrival):
        waiting_window = 2

        def rank_waiting(self, requests: list[RequestView], now: float) -> list[int]:  # type: ignore[override]
            assert len(requests) <= 2
            return sorted(range(len(requests)), key=lambda i: -requests[i].num_tokens)

    engine = SimulatedEngine(policy=Longest(), max_num_seqs=3)
    for name, length in (("a", 2), ("b", 3), ("c", 9), ("d", 4)):
        engine.add(range(length), request_id=name)
    output = engine.launch()
    assert output is not None
    assert [new.request_id for new in output.new_rows] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("length", "max_tokens", "settings", "numbers"),
    [
        (200, 57, {}, ("200", "57", "257", "256")),
        (40, 30, {"num_blocks": 18}, ("40", "30", "18 cache blocks", "there are 17")),
        (65, 1, {"chunked_prefill": False}, ("65", "64", "chunked")),
    ],
)
def test_a_request_that_can_never_fit_is_refused_with_the_numbers(
    length: int, max_tokens: int, settings: dict[str, object], numbers: tuple[str, ...]
) -> None:
    engine = SimulatedEngine(**settings)
    with pytest.raises(RequestTooLargeError) as caught:
        engine.add(range(length), max_tokens)
    for number in numbers:
        assert number in str(caught.value)
    assert not engine.scheduler.has_unfinished


def test_a_request_that_just_fits_is_taken_and_finishes() -> None:
    engine = SimulatedEngine(num_blocks=18, prefix_caching=False)
    engine.add(range(39), 30)
    engine.run()
    engine.check_outputs()
    assert engine.scheduler.stats().preemptions == 0


@pytest.mark.parametrize(("prompt", "max_tokens", "said"), [([], 1, "empty prompt"), ([1], 0, "max_tokens")])
def test_an_empty_request_is_refused(prompt: list[int], max_tokens: int, said: str) -> None:
    from vcore.engine.request import EngineRequest
    from vcore.sampling_params import SamplingParams

    request = EngineRequest(
        request_id="a", prompt_token_ids=prompt, params=SamplingParams(), max_tokens=max_tokens, arrival_time=0.0
    )
    with pytest.raises(RequestError, match=said):
        SimulatedEngine().scheduler.add(request)


def test_an_id_in_use_is_refused_and_free_again_afterwards() -> None:
    engine = SimulatedEngine()
    engine.add([1], request_id="a")
    with pytest.raises(RequestError, match="unique"):
        engine.add([2], request_id="a")
    engine.run()
    engine.finished.clear()
    engine.add([1], request_id="a")
    engine.run()
    engine.check_outputs()


def test_a_policy_may_refuse_a_request() -> None:
    class Strict(Arrival):
        def reject(self, request: RequestView) -> str | None:
            return "prompts of one token are dull" if request.num_prompt_tokens == 1 else None

    engine = SimulatedEngine(policy=Strict())
    with pytest.raises(RequestError, match="dull"):
        engine.add([1])
    engine.add([1, 2])
    engine.run()
    engine.check_outputs()


def test_callbacks_come_once_a_step_with_all_requests() -> None:
    heard: list[tuple[str, list[str], list[int] | None]] = []

    def names(requests: list[RequestView]) -> list[str]:
        return [request.request_id for request in requests]

    class Listener(Arrival):
        def on_admitted(self, requests: list[RequestView]) -> None:  # type: ignore[override]
            heard.append(("admitted", names(requests), None))

        def on_tokens(self, requests: list[RequestView], num_tokens: list[int]) -> None:  # type: ignore[override]
            heard.append(("tokens", names(requests), num_tokens))

        def on_finished(self, requests: list[RequestView]) -> None:  # type: ignore[override]
            heard.append(("finished", names(requests), None))

    engine = SimulatedEngine(policy=Listener())
    engine.add(range(3), 1, request_id="a")
    engine.add(range(10, 15), 2, request_id="b")
    engine.add([1, 2], 1, request_id="c")
    engine.scheduler.abort(["c"])
    engine.run()
    assert heard == [
        ("admitted", ["a", "b"], None),
        ("tokens", ["a", "b"], [3, 5]),
        ("finished", ["c", "a"], None),
        ("tokens", ["b"], [1]),
        ("finished", ["b"], None),
    ]


def test_views_are_live_and_read_only() -> None:
    seen: list[RequestView] = []

    class Looker(Arrival):
        def waiting_key(self, request: RequestView) -> int:
            seen.append(request)
            return 0

    engine = SimulatedEngine(policy=Looker())
    engine.add(range(6), 3, request_id="a", priority=4)
    (view,) = seen
    engine.step()
    assert (view.request_id, view.arrival_index, view.arrival_time, view.priority) == ("a", 0, 0.0, 4)
    assert (view.num_prompt_tokens, view.num_tokens, view.num_computed_tokens, view.num_output_tokens) == (6, 7, 6, 1)
    assert (view.max_tokens, view.num_preemptions, view.num_cached_tokens()) == (3, 0, 4)
    with pytest.raises(AttributeError):
        view.priority = 0  # type: ignore[misc]
    engine.scheduler.reset_prefix_cache()
    assert view.num_cached_tokens() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_num_seqs", 0),
        ("max_num_batched_tokens", 0),
        ("max_model_len", 0),
        ("block_size", 0),
        ("num_blocks", 1),
        ("long_prefill_threshold", 0),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: int) -> None:
    values = {
        "max_num_seqs": 1,
        "max_num_batched_tokens": 1,
        "max_model_len": 1,
        "block_size": 1,
        "num_blocks": 2,
    }
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        SchedulerSettings(**{**values, name: value})
