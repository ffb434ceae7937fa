"""Whose token is due first, who is late, and what a prompt is thought to take."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_view import CONTEXT, View
from vcore_policies.scheduling.earliest_deadline import EarliestDeadlinePolicy
from vcore_policies.scheduling.options import EarliestDeadlineOptions
from vcore_policies.scheduling.prefill_rate import PrefillRate

from vcore.interfaces.scheduling import SchedulingContext


def make(**options: object) -> EarliestDeadlinePolicy:
    values = {"ttft_target_s": 2.0, "itl_target_s": 0.5, **options}
    return EarliestDeadlinePolicy(options=EarliestDeadlineOptions(**values), context=CONTEXT)  # type: ignore[arg-type]


def order(policy: EarliestDeadlinePolicy, now: float) -> list[int]:
    return [view.arrival_index for view in policy.walk(now)]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, 1, 4]), st.integers(1, 40), st.booleans())),
    st.integers(0, 12),
    st.booleans(),
)
def test_the_order_is_by_when_tokens_are_due_and_then_the_late(
    requests: list[tuple[int, int | None, int, bool]], now: int, defers: bool
) -> None:
    policy = make(defer_late=defers, prefill_tokens_per_s=10.0)
    due, late = {}, {}
    for index, (arrival, ttft_s, size, resumed) in enumerate(requests):
        view = View(index, arrival_time=float(arrival), ttft_target_s=ttft_s, num_prompt_tokens=size)
        view.num_output_tokens = 3 * resumed
        policy.on_waiting(view)
        due[index] = arrival + (2.0 if ttft_s is None else ttft_s) + view.num_output_tokens * 0.5
        late[index] = defers and not resumed and now + size / 10.0 > due[index]
    expected = sorted(due, key=lambda one: (late[one], 0 if late[one] else due[one], one))
    assert order(policy, float(now)) == expected
    assert order(policy, float(now)) == expected
    for index in expected[::2]:
        policy.on_left(View(index))
    assert order(policy, float(now)) == expected[1::2]


def test_what_is_cached_takes_no_time() -> None:
    policy = make(prefill_tokens_per_s=10.0)
    policy.on_waiting(View(0, num_prompt_tokens=40))
    policy.on_waiting(View(1, num_prompt_tokens=40, cached=32))
    policy.on_waiting(View(2, num_prompt_tokens=4))
    assert order(policy, 0.0) == [1, 2, 0]


def test_those_that_generate_take_tokens_first_and_then_whose_prompt_is_due_first() -> None:
    running = [
        View(0),
        View(1, num_output_tokens=9),
        View(2, ttft_target_s=1.0),
        View(3, num_output_tokens=9, itl_target_s=0.1),
    ]
    assert make().order_running(running, 0.0) == [3, 1, 2, 0]


def test_prompts_take_a_share_of_the_least_itl_target_of_those_that_run() -> None:
    policy = make(prefill_tokens_per_s=1000.0, prefill_share=0.5)
    assert policy.max_prefill_tokens(0, 9) is None
    wide, tight = View(itl_target_s=0.03), View(itl_target_s=0.02)
    policy.on_admitted([wide, tight])
    policy.on_admitted([tight])  # again, after a preemption
    assert policy.max_prefill_tokens(2, 9) == 16  # no less than a step of this small context
    roomy = SchedulingContext(max_num_seqs=4, max_num_batched_tokens=4096, block_size=1, num_blocks=10)
    options = EarliestDeadlineOptions(prefill_tokens_per_s=10_000.0)
    policy = EarliestDeadlinePolicy(options=options, context=roomy)
    policy.on_admitted([wide, tight])
    policy.on_admitted([tight])
    assert policy.max_prefill_tokens(2, 9) == 100
    policy.on_finished([tight, View()])
    assert policy.max_prefill_tokens(1, 9) == 150
    assert policy.max_prefill_tokens(0, 9) is None
    policy.on_finished([wide])
    assert policy.max_prefill_tokens(1, 9) is None
    policy = EarliestDeadlinePolicy(options=EarliestDeadlineOptions(prefill_tokens_per_s=1e308), context=roomy)
    policy.on_admitted([View(itl_target_s=604_800.0)])
    assert policy.max_prefill_tokens(1, 9) == 4096, "no more than a step, however large the product"


def test_prompts_are_not_cut_short_where_nothing_is_known_or_they_may_not_be() -> None:
    for options, context in (
        (EarliestDeadlineOptions(), CONTEXT),
        (EarliestDeadlineOptions(prefill_tokens_per_s=10.0, prefill_share=None), CONTEXT),
        (EarliestDeadlineOptions(prefill_tokens_per_s=10.0), replace(CONTEXT, chunked_prefill=False)),
    ):
        policy = EarliestDeadlinePolicy(options=options, context=context)
        policy.on_admitted([View()])
        assert policy.max_prefill_tokens(1, 1) is None


def test_who_is_late_stays_behind_until_it_waits_again() -> None:
    policy = make()
    late, timely = View(0), View(1, arrival_time=2.0)
    policy.on_waiting(late)
    policy.on_waiting(timely)
    assert order(policy, 3.0) == [1, 0]
    policy.on_left(late)
    late.num_output_tokens = 1
    policy.on_waiting(late)
    assert order(policy, 3.0) == [0, 1]


def test_the_rate_is_learned_from_full_steps_alone() -> None:
    rate = PrefillRate(100, None)
    assert (rate.tokens_per_s, rate.seconds(1000)) == (None, 0.0)
    rate.tick(1.0)
    rate.add([60, 40])
    rate.add([1, 59])
    rate.tick(3.0)
    assert rate.tokens_per_s == 80.0
    rate.add([1] * 20)  # decoding only
    rate.tick(3.1)
    assert rate.tokens_per_s == 80.0
    rate.tick(9.0)  # idle
    rate.add([100])
    rate.tick(9.0)  # no time passed
    assert rate.tokens_per_s == 80.0
    rate.add([100])
    rate.tick(9.5)
    assert rate.tokens_per_s == pytest.approx(80 + 0.1 * (200 - 80))
    assert rate.seconds(46) == pytest.approx(0.5)


def test_a_given_rate_is_not_unlearned() -> None:
    rate = PrefillRate(100, 50.0)
    rate.tick(0.0)
    rate.add([100])
    rate.tick(1.0)
    assert rate.tokens_per_s == 50.0


def test_the_policy_learns_while_it_walks() -> None:
    policy = make()
    policy.on_waiting(View(0, num_prompt_tokens=100))
    policy.on_waiting(View(1, num_prompt_tokens=10))
    assert order(policy, 0.0) == [0, 1]
    policy.on_tokens([View(), View()], [6, 10])
    assert order(policy, 0.5) == [1, 0]  # 32 tokens a second
