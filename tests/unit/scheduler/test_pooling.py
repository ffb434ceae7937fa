"""Requests that pool: they end with their prompt, whatever happens while the vector is on its way."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from vcore_policies.scheduling import plugin

from vcore.config import PluginsConfig
from vcore.engine.request import FinishReason
from vcore.errors import EngineError, RequestTooLargeError
from vcore.interfaces.scheduling import SchedulingContext, SchedulingPolicy
from vcore.interfaces.step import SampledTokens
from vcore.plugins import PluginKind, SchedulingPolicySpec, discover
from vcore.testing.fake_worker import pool
from vcore.testing.simulated_engine import SimulatedEngine


@pytest.mark.parametrize("mode", ["last", "mean"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_ends_with_its_prompt_and_gives_no_token(mode: str, depth: int) -> None:
    engine = SimulatedEngine(depth=depth, max_num_batched_tokens=5)
    text = engine.add(range(3), 9)
    names = [engine.add(range(length), pooling=mode) for length in (1, 5, 12)]  # type: ignore[arg-type]
    engine.run()
    assert {engine.finished[name].reason for name in names} == {FinishReason.STOP}
    assert set(engine.vectors) == set(names)
    assert len(engine.outputs[text]) == 9
    assert not any(output.samples[output.rows == row].any() for output in engine.schedules for row in pooling(output))
    engine.check_outputs()
    engine.check_idle()
    assert engine.scheduler._table.num_pooling == 0, "later steps look for nobody"


def test_chunks_follow_one_another_without_waiting() -> None:
    engine = SimulatedEngine(depth=3, max_num_batched_tokens=4)
    engine.add(range(12), pooling="mean")
    assert [engine.launch() is not None for _ in range(4)] == [True, True, True, False]
    engine.run()
    engine.check_outputs()


def pooling(output: object) -> list[int]:
    """The rows that a step's newcomers pool in."""
    return [new.row for new in output.new_rows if new.pooling]  # type: ignore[attr-defined]


def test_one_token_beside_decode_rows_does_not_sample() -> None:
    """All rows have one token: the step that would be uniform."""
    engine = SimulatedEngine(max_num_batched_tokens=3, long_prefill_threshold=2)
    text = engine.add([1], 6)
    engine.step()
    name = engine.add([2, 3, 4], pooling="last")
    engine.step()
    output = engine.launch()
    assert output is not None
    assert output.num_decodes == 2
    assert output.samples.tolist() == [engine.worker.rows[row].request_id == text for row in output.rows.tolist()]
    step = engine.collect()
    assert list(step.vectors) == [name]
    assert step.request_ids == [text]
    engine.run()
    engine.check_outputs()


def test_only_the_mean_goes_past_the_cache() -> None:
    engine = SimulatedEngine()
    engine.add(range(13), 1)
    engine.run()
    names = [engine.add(range(13), pooling=mode) for mode in ("last", "mean")]  # type: ignore[arg-type]
    before = engine.scheduler.stats()
    engine.run()
    assert [engine.cached[name] for name in names] == [12, 0]
    after = engine.scheduler.stats()
    assert after.prefix_query_tokens - before.prefix_query_tokens == 13
    assert after.prefix_hit_tokens - before.prefix_hit_tokens == 12
    engine.check_outputs()


def test_what_a_mean_computed_serves_others() -> None:
    engine = SimulatedEngine()
    engine.add(range(13), pooling="mean")
    engine.run()
    name = engine.add(range(13), 1)
    engine.run()
    assert engine.cached[name] == 12
    engine.check_outputs()


@pytest.mark.parametrize("mode", ["last", "mean"])
def test_a_vector_on_its_way_reaches_one_that_was_preempted(mode: str) -> None:
    engine = SimulatedEngine(depth=2)
    name = engine.add(range(6), pooling=mode)  # type: ignore[arg-type]
    engine.launch()
    lifecycle = engine.scheduler._lifecycle
    lifecycle.preempt(lifecycle.requests[name])
    assert engine.launch() is None, "it is not computed again while its vector is on its way"
    step = engine.collect()
    assert (list(step.vectors), step.finished[name].num_preemptions) == ([name], 1)
    assert step.vectors[name] == pool(engine.requests[name])
    engine.check_idle()


def test_one_that_is_preempted_half_way_begins_anew() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=4, prefix_caching=False)
    name = engine.add(range(10), pooling="mean")
    engine.step()
    lifecycle = engine.scheduler._lifecycle
    lifecycle.preempt(lifecycle.requests[name])
    engine.run()
    assert [new.num_computed_tokens for output in engine.schedules for new in output.new_rows] == [0, 0]
    engine.check_outputs()
    engine.check_idle()


def test_an_abort_drops_a_vector_on_its_way() -> None:
    engine = SimulatedEngine(depth=2)
    name = engine.add(range(6), pooling="last")
    engine.launch()
    engine.scheduler.abort([name])
    step = engine.collect()
    assert not step.vectors
    assert step.finished[name].reason is FinishReason.ABORT
    engine.check_idle()


def test_a_row_in_error_ends_alone_and_is_not_found_again() -> None:
    engine = SimulatedEngine()
    good, bad = engine.add(range(8), pooling="last"), engine.add(range(20, 29), pooling="last")
    engine.launch()
    [(_, sampled)] = engine.in_flight
    row = next(row for row, state in engine.worker.rows.items() if state.request_id == bad)
    del sampled.vectors[row]
    sampled.errors[row] = "not finite"
    step = engine.collect()
    assert list(step.vectors) == [good]
    assert (step.finished[bad].reason, step.finished[bad].stop_reason) == (FinishReason.ERROR, "not finite")
    again = engine.add(range(20, 29), pooling="last")
    engine.run()
    assert engine.cached[again] == 0
    engine.check_idle()


@pytest.mark.parametrize("launched", [False, True])
def test_a_step_that_fails_ends_it(launched: bool) -> None:
    engine = SimulatedEngine()
    name = engine.add(range(6), pooling="mean")
    engine.fail_step(launched=launched)
    assert engine.finished[name].reason is FinishReason.ERROR
    assert not engine.vectors
    engine.check_idle()


def test_an_answer_without_a_vector_is_refused() -> None:
    engine = SimulatedEngine()
    engine.add(range(6), pooling="last")
    output = engine.launch()
    assert output is not None
    nothing = SampledTokens(step_id=output.step_id, rows=output.rows[:0], token_ids=np.empty(0, dtype=np.int64))
    with pytest.raises(EngineError, match=r"no vectors came for rows \[0\]"):
        engine.scheduler.update(output, nothing)


def test_a_prompt_may_fill_the_model_but_not_more() -> None:
    engine = SimulatedEngine(max_model_len=32, num_blocks=100)
    engine.add(range(32), pooling="last")
    engine.run()
    engine.check_outputs()
    with pytest.raises(RequestTooLargeError, match=r"has 33 prompt tokens, 33 in all.*Shorten the prompt\.") as caught:
        engine.add(range(33), pooling="last")
    assert caught.value.param == "prompt"


def test_every_token_of_it_needs_room_in_the_cache() -> None:
    """Of a text the last token is sampled and never computed; here none is sampled."""
    engine = SimulatedEngine(num_blocks=4, max_model_len=64)
    engine.add(range(12), pooling="last")
    engine.run()
    with pytest.raises(RequestTooLargeError, match=r"takes 4 cache blocks.*Shorten the prompt, or raise"):
        engine.add(range(13), pooling="last")
    engine.add(range(12), 1)
    engine.run()
    engine.check_outputs()


def test_policies_see_that_it_generates_nothing() -> None:
    engine = SimulatedEngine()
    name = engine.add(range(6), pooling="last", expected_tokens=5)
    view = engine.scheduler._lifecycle.requests[name].view
    assert (view.max_tokens, view.expected_tokens, view.num_output_tokens) == (0, 0, 0)


@pytest.mark.parametrize("spec", plugin.vcore_scheduling_policies(), ids=lambda spec: spec.name)
def test_every_policy_orders_them_with_texts(spec: SchedulingPolicySpec) -> None:
    """Little room and two tenants, so that each is asked everything; none fails over one that generates nothing."""
    catalog = discover(PluginsConfig())
    entry = catalog.find(PluginKind.SCHEDULING_POLICY, spec.name)

    def make(context: SchedulingContext) -> SchedulingPolicy:
        return cast(SchedulingPolicy, catalog.create(entry, options={}, context=context))

    engine = SimulatedEngine(make_policy=make, num_blocks=14, max_num_seqs=3, max_num_batched_tokens=12, strict=True)
    for index in range(24):
        mode = (None, "last", "mean")[index % 3]
        prompt = range(index % 5, 5 + 7 * (index % 4))
        engine.add(prompt, 1 + index % 9, pooling=mode, tenant="ab"[index % 2], priority=index % 3)  # type: ignore[arg-type]
        if index % 2:
            engine.step()
    engine.run()
    engine.check_outputs()
    engine.check_idle()
    assert {finished.reason for finished in engine.finished.values()} <= {FinishReason.STOP, FinishReason.LENGTH}
