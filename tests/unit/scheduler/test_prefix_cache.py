"""Prefix caching through the scheduler: who shares what, and from which step on."""

from __future__ import annotations

from simulated_engine import SimulatedEngine, generate

from vcore.interfaces.step import SampledTokens


def computed_tokens(engine: SimulatedEngine) -> int:
    return sum(output.num_total_tokens for output in engine.schedules)


def test_a_second_request_hits_what_the_first_computed() -> None:
    engine = SimulatedEngine()
    engine.add(range(10), request_id="a")
    engine.run()
    engine.add(range(10), request_id="b")
    engine.run()
    assert (engine.cached["a"], engine.cached["b"]) == (0, 8)
    assert engine.outputs["a"] == engine.outputs["b"]
    stats = engine.scheduler.stats()
    assert (stats.prefix_query_tokens, stats.prefix_hit_tokens) == (20, 8)


def test_the_last_prompt_token_is_always_computed() -> None:
    engine = SimulatedEngine()
    for name in "ab":
        engine.add(range(8), request_id=name)
        engine.run()
    assert engine.cached["b"] == 4


def test_generated_tokens_are_cached_too() -> None:
    engine = SimulatedEngine()
    engine.add(range(6), 10, request_id="a")
    engine.run()
    engine.add([*range(6), *engine.outputs["a"], 1, 2, 3], request_id="b")
    engine.run()
    # 6 + 10 tokens, of which the last was never computed: 15 // 4 blocks.
    assert engine.cached["b"] == 12
    engine.check_outputs()


def test_blocks_can_be_hit_in_the_step_after_their_own_is_launched() -> None:
    engine = SimulatedEngine(depth=2)
    engine.add(range(10), request_id="a")
    engine.launch()
    engine.add(range(10), request_id="b")
    output = engine.launch()
    assert output is not None
    assert output.new_rows[0].num_computed_tokens == 8
    engine.collect()
    engine.collect()
    engine.run()
    engine.check_outputs()


def test_samples_of_one_prompt_compute_it_once() -> None:
    engine = SimulatedEngine(max_num_seqs=8, max_num_batched_tokens=16)
    for i in range(6):
        engine.add(range(42), 1, sample_index=i)
    engine.run()
    # 40 tokens in full blocks once, and the two tokens after them for each.
    assert computed_tokens(engine) == 40 + 6 * 2
    engine.check_outputs()


def test_others_may_pass_one_that_waits_for_a_block_being_filled() -> None:
    engine = SimulatedEngine()
    engine.add(range(10), request_id="a")
    engine.add(range(10), request_id="same")
    engine.add(range(20, 25), request_id="other")
    output = engine.launch()
    assert output is not None
    assert [new.request_id for new in output.new_rows] == ["a", "other"]
    engine.collect()
    output = engine.launch()
    assert output is not None
    assert [(new.request_id, new.num_computed_tokens) for new in output.new_rows] == [("same", 8)]


def test_salts_keep_requests_apart() -> None:
    engine = SimulatedEngine()
    engine.add(range(10), request_id="a", extra_keys=("x",))
    engine.run()
    engine.add(range(10), request_id="b")
    engine.add(range(10), request_id="c", extra_keys=("x",))
    engine.run()
    assert (engine.cached["b"], engine.cached["c"]) == (0, 8)
    engine.check_outputs()


def test_without_prefix_caching_nothing_is_shared() -> None:
    engine = SimulatedEngine(prefix_caching=False)
    for name in "ab":
        engine.add(range(10), request_id=name)
        engine.run()
    assert engine.cached["b"] == 0
    stats = engine.scheduler.stats()
    assert (stats.cached_blocks, stats.prefix_query_tokens) == (0, 0)


def test_prompt_logprobs_bypass_hits_but_leave_their_blocks_to_others() -> None:
    engine = SimulatedEngine()
    engine.add(range(10), request_id="a", prompt_logprobs=1)
    engine.run()
    engine.add(range(10), request_id="b", prompt_logprobs=1)
    engine.add(range(10), request_id="c")
    engine.run()
    assert (engine.cached["b"], engine.cached["c"]) == (0, 8)
    assert engine.scheduler.stats().prefix_query_tokens == 10


def test_a_preempted_request_whose_prompt_logprobs_are_told_may_hit() -> None:
    engine = SimulatedEngine(num_blocks=7)
    engine.add(range(8), 8, request_id="a")
    engine.add(range(20, 28), 9, request_id="b", prompt_logprobs=1)
    engine.step()
    # As if the worker had told them.
    engine.scheduler._lifecycle.requests["b"].prompt_logprobs_told = 7
    engine.run()
    assert engine.finished["b"].num_preemptions == 1
    resumed = [new for output in engine.schedules for new in output.new_rows if new.request_id == "b"][-1]
    assert resumed.num_computed_tokens > 0


def test_reset_forgets_and_running_requests_go_on() -> None:
    engine = SimulatedEngine()
    engine.add(range(10), 12, request_id="a")
    engine.step()
    assert engine.scheduler.reset_prefix_cache() is True
    assert engine.scheduler.stats().cached_blocks == 0
    engine.run()
    assert engine.scheduler.stats().cached_blocks == 0, "what rests on forgotten content is not cached"
    engine.add(range(10), 12, request_id="b")
    engine.run()
    assert engine.cached["b"] == 0
    engine.check_outputs()
    engine.check_idle()


def test_the_prompt_is_withdrawn_if_its_step_fails() -> None:
    engine = SimulatedEngine()
    engine.add(range(10), request_id="a")
    engine.fail_step(launched=True)
    assert engine.scheduler.stats().cached_blocks == 0
    engine.add(range(10), request_id="b")
    engine.run()
    assert engine.cached["b"] == 0
    engine.check_outputs()


def test_what_an_earlier_step_computed_survives_the_failure_of_a_later_one() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=8)
    engine.add(range(20), request_id="a")
    engine.step()
    engine.fail_step(launched=True)
    engine.add(range(20), request_id="b")
    engine.run()
    assert engine.cached["b"] == 8
    engine.check_outputs()


def test_with_steps_in_flight_a_block_is_found_once_its_last_token_is_known() -> None:
    # The prompt and one token fill a block, and the next step computes that token before it is known.
    engine = SimulatedEngine(depth=2)
    engine.add(range(3), 8, request_id="a")
    engine.launch()
    engine.launch()
    assert engine.scheduler.stats().cached_blocks == 0
    engine.collect()
    engine.launch()
    assert engine.scheduler.stats().cached_blocks == 1
    engine.run()
    engine.check_outputs()


def test_a_block_that_becomes_known_when_nothing_is_left_to_compute_can_be_hit() -> None:
    engine = SimulatedEngine(depth=2)
    engine.add(range(3), 2, request_id="a")
    engine.launch()
    engine.launch()
    engine.collect()
    assert engine.launch() is None
    engine.add([*range(3), *engine.outputs["a"], 9], request_id="b")
    engine.run()
    assert engine.cached["b"] == 4
    engine.check_outputs()


def test_what_becomes_known_at_the_end_is_withdrawn_with_the_step_that_computes_it() -> None:
    engine = SimulatedEngine(depth=2)
    engine.add(range(3), 8, request_id="a")
    engine.launch()
    engine.launch()
    engine.collect()
    engine.scheduler.abort(["a"])
    assert engine.scheduler.stats().cached_blocks == 1
    output, _ = engine.in_flight.pop()
    engine.take(engine.scheduler.fail(output, RuntimeError("lost")))
    assert engine.scheduler.stats().cached_blocks == 0
    engine.check_idle()


def test_a_row_in_error_leaves_nothing_behind_with_steps_in_flight() -> None:
    engine = SimulatedEngine(depth=3)
    engine.add(range(3), 8, request_id="a")
    for _ in range(3):
        engine.launch()
    engine.collect()
    engine.in_flight[0][1].errors = {0: "NaN"}
    engine.collect()
    assert engine.finished["a"].stop_reason == "NaN"
    assert engine.scheduler.stats().cached_blocks == 0
    engine.collect()
    engine.check_idle()


def test_a_row_in_error_is_not_trusted_with_any_block() -> None:
    engine = SimulatedEngine(max_num_batched_tokens=8)
    engine.add(range(14), 4, request_id="a")
    engine.step()
    output = engine.scheduler.schedule()
    assert output is not None
    engine.worker.compute(output)
    sampled = SampledTokens(
        step_id=output.step_id, rows=output.rows[:0], token_ids=output.rows[:0].astype("int64"), errors={0: "NaN"}
    )
    engine.take(engine.scheduler.update(output, sampled))
    assert engine.finished["a"].stop_reason == "NaN"
    assert engine.scheduler.stats().cached_blocks == 0
    engine.check_idle()


def test_cached_blocks_are_evicted_when_others_need_them() -> None:
    engine = SimulatedEngine(num_blocks=10)
    for i in range(6):
        engine.add(range(i * 20, i * 20 + 16), 4)
        engine.run()
    engine.check_outputs()
    assert engine.scheduler.stats().cached_blocks <= 9


def test_a_salted_oracle_agrees_that_salts_matter() -> None:
    engine = SimulatedEngine()
    plain, salted = engine.add(range(5)), engine.add(range(5), extra_keys=("s",))
    assert generate(engine.requests[plain])[0] != generate(engine.requests[salted])[0]
