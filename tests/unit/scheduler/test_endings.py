"""How requests end: stops, aborts at any moment, stop strings, failed steps, rows in error, wrong answers."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_engine import SimulatedEngine, StepFailedError, generate
from vcore_policies.scheduling.priority import PriorityPolicy

from vcore.engine.request import FinishReason
from vcore.errors import EngineError
from vcore.interfaces.scheduling import SchedulingContext
from vcore.interfaces.step import SampledTokens, SchedulerOutput, TokenLogprobs


def entry(token_id: int) -> TokenLogprobs:
    return TokenLogprobs([token_id], [-1.0], [1])


def alone(engine: SimulatedEngine, request_id: str) -> list[int]:
    return generate(engine.requests[request_id])[0]


def test_length_ends_a_request() -> None:
    engine = SimulatedEngine()
    name = engine.add(range(5), 3)
    engine.run()
    assert (engine.finished[name].reason, engine.finished[name].stop_reason) == (FinishReason.LENGTH, None)
    assert len(engine.outputs[name]) == 3


@pytest.mark.parametrize("depth", [1, 2])
def test_eos_and_stop_tokens_end_a_request(depth: int) -> None:
    probe = SimulatedEngine()
    third = alone(probe, probe.add(range(5), 8))[2]
    engine = SimulatedEngine(depth=depth)
    by_eos = engine.add(range(5), 8, eos=(third,))
    by_stop = engine.add(range(5), 8, stop_token_ids=(third,))
    by_both = engine.add(range(5), 8, eos=(third,), stop_token_ids=(third,))
    engine.run()
    assert [engine.finished[name].stop_reason for name in (by_eos, by_stop, by_both)] == [None, third, None]
    assert {engine.finished[name].reason for name in (by_eos, by_stop, by_both)} == {FinishReason.STOP}
    assert engine.outputs[by_eos][-1] == third
    engine.check_outputs()
    engine.check_idle()


def test_before_min_tokens_nothing_stops() -> None:
    probe = SimulatedEngine()
    tokens = alone(probe, probe.add(range(5), 8))
    engine = SimulatedEngine()
    name = engine.add(range(5), 8, eos=tuple(tokens), min_tokens=4)
    engine.run()
    assert engine.outputs[name] == tokens[:4]


def test_an_ending_waits_for_the_next_output() -> None:
    engine = SimulatedEngine()
    engine.add([1], request_id="a")
    engine.scheduler.abort(["a", "unknown"])
    assert engine.scheduler.has_unfinished
    step = engine.step()
    assert step.finished["a"].reason is FinishReason.ABORT
    assert not engine.scheduler.has_unfinished


def test_an_abort_between_schedule_and_update_drops_the_tokens_and_frees_row_and_blocks() -> None:
    engine = SimulatedEngine()
    engine.add(range(6), request_id="a")
    engine.add(range(10, 16), request_id="b")
    engine.launch()
    engine.scheduler.abort(["a"])
    step = engine.collect()
    assert step.request_ids == ["b"]
    assert step.finished["a"].reason is FinishReason.ABORT
    output = engine.launch()
    assert output is not None
    assert output.freed_rows == [0]
    engine.collect()
    engine.run()
    engine.check_outputs()
    engine.check_idle()


def test_an_id_may_come_again_while_its_aborted_predecessor_is_in_flight() -> None:
    engine = SimulatedEngine()
    engine.add(range(6), request_id="a")
    engine.launch()
    engine.scheduler.abort(["a"])
    engine.add(range(20, 26), request_id="a")
    assert engine.collect().request_ids == []
    engine.finished.clear()
    engine.run()
    engine.check_outputs()


def test_a_stop_string_ends_a_request_at_once() -> None:
    engine = SimulatedEngine()
    engine.add(range(6), 20, request_id="a")
    engine.step()
    engine.step()
    engine.launch()
    engine.scheduler.finish("a", 1, "stop!")
    step = engine.collect()
    assert step.token_ids == []
    finished = step.finished["a"]
    assert (finished.reason, finished.stop_reason) == (FinishReason.STOP, "stop!")
    engine.scheduler.finish("a", 1, "again")
    engine.scheduler.finish("unknown", 1, "x")
    assert not engine.scheduler.has_unfinished
    engine.check_idle()


def test_a_failed_step_ends_its_requests_and_no_others() -> None:
    engine = SimulatedEngine(max_num_seqs=1)
    engine.add(range(6), request_id="a")
    engine.add(range(10, 16), request_id="b")
    step = engine.fail_step(launched=True)
    assert step is not None
    assert step.finished["a"].reason is FinishReason.ERROR
    assert step.finished["a"].stop_reason == "StepFailedError: made to fail"
    assert "a" in step.started
    engine.run()
    assert engine.finished["b"].reason is FinishReason.LENGTH
    engine.check_outputs()
    engine.check_idle()


@pytest.mark.parametrize("launched", [True, False])
def test_rows_freed_by_a_failed_step_are_freed_again(launched: bool) -> None:
    engine = SimulatedEngine(max_num_seqs=2)
    engine.add([1], 1, request_id="a")
    engine.add([2], 9, request_id="b")
    engine.step()
    # Row 0 is to be freed, and taken anew, in the step that fails: the worker may not have heard of it.
    engine.add([3], 9, request_id="c")
    engine.fail_step(launched=launched)
    engine.add([4], 2, request_id="d")
    engine.run()
    engine.check_outputs()
    assert {name: finished.reason.value for name, finished in engine.finished.items()} == {
        "a": "length",
        "b": "error",
        "c": "error",
        "d": "length",
    }


def test_steps_launched_after_a_failed_one_fail_with_it() -> None:
    engine = SimulatedEngine(max_num_seqs=2, depth=2)
    engine.add(range(9), request_id="a")
    first = engine.launch()
    engine.add(range(9), request_id="b")
    second = engine.launch()
    assert first is not None
    assert second is not None
    step = engine.take(engine.scheduler.fail(first, StepFailedError("x")))
    assert set(step.finished) == {"a", "b"}
    assert engine.scheduler.fail(second, StepFailedError("x")).finished == {}
    assert engine.scheduler.stats().cached_blocks == 0
    engine.check_idle()


def test_an_earlier_step_is_collected_although_a_later_one_failed() -> None:
    engine = SimulatedEngine(depth=2, max_num_seqs=1)
    engine.add(range(6), request_id="a")
    engine.launch()
    second = engine.scheduler.schedule()
    assert second is not None
    engine.take(engine.scheduler.fail(second, StepFailedError("x")))
    assert engine.collect().token_ids == []
    engine.check_idle()


def test_a_row_in_error_ends_alone() -> None:
    engine = SimulatedEngine()
    for i, name in enumerate("abc"):
        engine.add(range(i * 10, i * 10 + 5), request_id=name)
    output = engine.scheduler.schedule()
    assert output is not None
    sampled = engine.worker.compute(output)
    sampled.errors, sampled.error_params = {1: "the processor raised"}, {1: "logits_processors"}
    step = engine.take(engine.scheduler.update(output, sampled))
    assert step.request_ids == ["a", "c"]
    assert step.finished["b"].reason is FinishReason.ERROR
    assert step.finished["b"].stop_reason == "the processor raised"
    assert step.error_params == {"b": "logits_processors"}
    engine.run()
    engine.check_outputs()
    engine.check_idle()


def test_a_row_in_error_may_be_left_out_of_the_answer() -> None:
    engine = SimulatedEngine()
    for i, name in enumerate("abc"):
        engine.add(range(i * 10, i * 10 + 5), request_id=name)
    output = engine.scheduler.schedule()
    assert output is not None
    sampled = engine.worker.compute(output)
    keep = sampled.rows != 1
    sampled.rows, sampled.token_ids, sampled.errors = sampled.rows[keep], sampled.token_ids[keep], {1: "NaN"}
    step = engine.take(engine.scheduler.update(output, sampled))
    assert step.request_ids == ["a", "c"]
    engine.run()
    engine.check_outputs()


def test_a_row_in_error_that_only_computed_a_chunk_ends_too() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=4)
    engine.add(range(9), request_id="a")
    output = engine.scheduler.schedule()
    assert output is not None
    sampled = engine.worker.compute(output)
    sampled.errors = {0: "NaN"}
    engine.take(engine.scheduler.update(output, sampled))
    assert engine.finished["a"].reason is FinishReason.ERROR
    engine.check_idle()


def swap(sampled: SampledTokens) -> None:
    sampled.rows = sampled.rows[::-1].copy()


def lose(sampled: SampledTokens) -> None:
    sampled.rows = sampled.rows[:1]


def too_many_tokens(sampled: SampledTokens) -> None:
    sampled.token_ids = np.zeros(5, dtype=np.int64)


def no_token_for_a_row(sampled: SampledTokens) -> None:
    sampled.num_per_row = np.array([2, 0], dtype=np.int32)


@pytest.mark.parametrize("spoil", [swap, lose, too_many_tokens, no_token_for_a_row])
def test_an_answer_that_does_not_match_is_refused_and_the_step_can_fail(spoil) -> None:  # type: ignore[no-untyped-def]
    engine = SimulatedEngine()
    engine.add(range(5))
    engine.add(range(10, 15))
    output = engine.scheduler.schedule()
    assert output is not None
    sampled = engine.worker.compute(output)
    spoil(sampled)
    with pytest.raises(EngineError, match=r"step 1.*expected"):
        engine.scheduler.update(output, sampled)
    assert len(engine.scheduler.fail(output, StepFailedError("x")).finished) == 2
    engine.check_idle()


def test_steps_are_updated_in_order() -> None:
    engine = SimulatedEngine(depth=2)
    engine.add(range(5))
    engine.launch()
    engine.launch()
    output, sampled = engine.in_flight[1]
    with pytest.raises(EngineError, match="oldest"):
        engine.scheduler.update(output, sampled)


def test_several_tokens_a_row_are_taken_until_one_ends_the_request() -> None:
    engine = SimulatedEngine()
    engine.add(range(5), 3, request_id="a")
    engine.add(range(10, 15), 9, request_id="b")
    output = engine.scheduler.schedule()
    assert output is not None
    engine.worker.compute(output)
    a, b = alone(engine, "a"), alone(engine, "b")
    sampled = SampledTokens(
        step_id=output.step_id,
        rows=output.rows,
        token_ids=np.array([*a, 7, *b[:2]], dtype=np.int64),
        num_per_row=np.array([4, 2], dtype=np.int32),
    )
    engine.take(engine.scheduler.update(output, sampled))
    engine.worker.rows[1].tokens.append(b[1])
    assert engine.outputs == {"a": a, "b": b[:2]}
    assert engine.finished["a"].reason is FinishReason.LENGTH
    second = engine.launch()
    assert second is not None
    assert second.num_tokens.tolist() == [2], "tokens beyond the first are still to be computed"
    engine.collect()
    engine.run()
    engine.check_outputs()


def test_logprobs_are_told_by_request() -> None:
    engine = SimulatedEngine()
    engine.add(range(5), request_id="a", logprobs=1)
    output = engine.scheduler.schedule()
    assert output is not None
    sampled = engine.worker.compute(output)
    sampled.logprobs = {0: [entry(3)]}
    assert engine.take(engine.scheduler.update(output, sampled)).logprobs == {"a": [entry(3)]}


def with_prompt_logprobs(engine: SimulatedEngine, output: SchedulerOutput) -> SampledTokens:
    """What a worker tells of prompt tokens: those that follow a token of the chunk."""
    starts = {row: state.num_computed for row, state in engine.worker.rows.items()}
    starts |= {new.row: new.num_computed_tokens for new in output.new_rows}
    sampled = engine.worker.compute(output)
    for row, count in zip(output.rows.tolist(), output.num_tokens.tolist(), strict=True):
        request = engine.requests[engine.worker.rows[row].request_id]
        end = min(starts[row] + count + 1, len(request.prompt_token_ids))
        entries = [entry(request.prompt_token_ids[i]) for i in range(starts[row] + 1, end)]
        if entries and request.params.prompt_logprobs is not None:
            sampled.prompt_logprobs[row] = entries
    return sampled


@pytest.mark.parametrize("max_num_batched_tokens", [3, 7, 64])
def test_prompt_logprobs_are_told_once_though_a_preempted_request_computes_them_again(
    max_num_batched_tokens: int,
) -> None:
    engine = SimulatedEngine(num_blocks=12, max_num_batched_tokens=max_num_batched_tokens)
    for i in range(4):
        engine.add(range(i * 10, i * 10 + 6), 20, prompt_logprobs=0)
    told: dict[str, list[int]] = {name: [] for name in engine.requests}
    while engine.scheduler.has_unfinished:
        output = engine.scheduler.schedule()
        if output is None:
            engine.take(engine.scheduler.take_finished())
            continue
        step = engine.take(engine.scheduler.update(output, with_prompt_logprobs(engine, output)))
        for name, entries in step.prompt_logprobs.items():
            told[name] += [item.token_ids[0] for item in entries]
    assert engine.scheduler.stats().preemptions > 0
    assert told == {name: request.prompt_token_ids[1:] for name, request in engine.requests.items()}
    engine.check_outputs()


def test_prompt_logprobs_of_a_chunk_that_was_in_flight_at_a_preemption_are_told_once() -> None:
    context = SchedulingContext(max_num_seqs=1, max_num_batched_tokens=4, block_size=4, num_blocks=200)
    policy = PriorityPolicy(options=None, context=context)
    engine = SimulatedEngine(policy=policy, max_num_seqs=1, max_num_batched_tokens=4)
    engine.add(range(12), 4, request_id="a", prompt_logprobs=0, priority=1)
    told: list[int] = []
    in_flight: list[tuple[SchedulerOutput, SampledTokens]] = []
    for turn in range(60):
        if turn == 2:  # two chunks are in flight, of which one is told below
            engine.add(range(20, 24), 2, request_id="b", priority=0)
        output = engine.scheduler.schedule()
        if output is not None:
            in_flight.append((output, with_prompt_logprobs(engine, output)))
        if in_flight and (output is None or len(in_flight) == 2):
            step = engine.take(engine.scheduler.update(*in_flight.pop(0)))
            told += [item.token_ids[0] for item in step.prompt_logprobs.get("a", [])]
    assert engine.scheduler.stats().preemptions == 1
    assert told == list(range(1, 12))
    engine.check_outputs()
