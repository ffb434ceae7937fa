"""The decisions of each scheduling policy, against its rule written down once more."""

from __future__ import annotations

import random

import pytest
from policy_view import CONTEXT, View
from pydantic import ValidationError
from vcore_policies.scheduling import options as all_options
from vcore_policies.scheduling.fcfs import FCFSPolicy
from vcore_policies.scheduling.multilevel_feedback import MultilevelFeedbackPolicy
from vcore_policies.scheduling.options import (
    MultilevelFeedbackOptions,
    PriorityOptions,
    ShortestJobOptions,
    ShortestRemainingOptions,
)
from vcore_policies.scheduling.priority import PriorityPolicy
from vcore_policies.scheduling.shortest_job import ShortestJobPolicy
from vcore_policies.scheduling.shortest_remaining import ShortestRemainingPolicy


def views(*priorities: int, **fields: object) -> list[View]:
    return [View(arrival, priority=priority, **fields) for arrival, priority in enumerate(priorities)]  # type: ignore[arg-type]


def test_fcfs_goes_by_arrival_whatever_the_priority() -> None:
    policy = FCFSPolicy(options=None, context=CONTEXT)
    waiting = views(3, 1, 2)
    assert sorted(waiting, key=policy.waiting_key) == waiting
    assert policy.pick_victim(waiting) == 2
    assert not policy.should_displace(View(0, priority=-9), View(1, priority=9))


# Priority


def priority(**options: object) -> PriorityPolicy:
    return PriorityPolicy(options=PriorityOptions(**options), context=CONTEXT)  # type: ignore[arg-type]


def test_priority_goes_by_urgency() -> None:
    policy = priority()
    assert [policy.waiting_key(view) for view in views(3, -1, 2)] == [3, -1, 2]
    assert policy.order_running(views(3, 1, 2, 1), 0.0) == [1, 3, 2, 0]


def test_the_victim_is_the_least_urgent_and_of_those_the_latest() -> None:
    assert priority().pick_victim(views(1, 5, 2)) == 1
    assert priority().pick_victim(views(5, 1, 5, 2)) == 2


def test_only_the_strictly_less_urgent_are_displaced() -> None:
    policy = priority()
    assert policy.should_displace(View(9, priority=1), View(0, priority=2))
    assert not policy.should_displace(View(0, priority=2), View(9, priority=2))
    assert not policy.should_displace(View(0, priority=3), View(9, priority=2))


def test_waiting_makes_as_urgent_as_the_option_says() -> None:
    policy = priority(ageing_s=10.0)
    old = View(0, priority=3, arrival_time=100.0)
    assert policy.waiting_key(old) < policy.waiting_key(View(1, priority=0, arrival_time=130.1))
    assert policy.waiting_key(old) > policy.waiting_key(View(1, priority=0, arrival_time=129.9))
    assert policy.should_displace(View(1, priority=0, arrival_time=129.9), old)
    assert not policy.should_displace(View(1, priority=0, arrival_time=130.1), old)


def test_equals_are_not_displaced_by_age() -> None:
    assert not priority(ageing_s=1.0).should_displace(View(0, arrival_time=0.0), View(1, arrival_time=50.0))


def test_without_ageing_urgency_is_for_ever_and_no_bound_is_stated() -> None:
    policy = priority(ageing_s=None)
    assert policy.waiting_key(View(priority=1, arrival_time=0.0)) > policy.waiting_key(View(arrival_time=1e9))
    assert policy.max_overtaking_s is None
    assert priority(ageing_s=3.0, max_level=2).max_overtaking_s == 12.0


def test_priorities_beyond_the_levels_count_as_the_last() -> None:
    policy = priority(max_level=2)
    assert [policy.waiting_key(view) for view in views(-9, -2, 2, 2**31)] == [-2, -2, 2, 2]


# Shortest job, shortest remaining


def job(**options: object) -> ShortestJobPolicy:
    return ShortestJobPolicy(options=ShortestJobOptions(**options), context=CONTEXT)  # type: ignore[arg-type]


def remaining(**options: object) -> ShortestRemainingPolicy:
    return ShortestRemainingPolicy(options=ShortestRemainingOptions(**options), context=CONTEXT)  # type: ignore[arg-type]


def test_the_work_is_weighted_tokens() -> None:
    policy = job(input_weight=0.5, output_weight=3.0)
    assert policy.waiting_key(View(num_prompt_tokens=10, expected_tokens=7)) == 0.5 * 10 + 3.0 * 7


@pytest.mark.parametrize("make", [job, remaining])
def test_requests_that_state_no_length_are_predicted_from_those_that_ended(make) -> None:  # type: ignore[no-untyped-def]
    policy = make(initial_tokens=50)
    brief, wordy = {"tenant": "brief"}, {"tenant": "wordy"}
    assert policy.waiting_key(View(**brief)) == policy.waiting_key(View(**wordy)) == 8 + 2 * 50
    for _ in range(30):
        policy.on_finished([View(num_output_tokens=5, **brief), View(num_output_tokens=400, **wordy)])
    assert policy.waiting_key(View(**brief)) < 8 + 2 * 20
    assert policy.waiting_key(View(**wordy)) > 8 + 2 * 300


def test_what_requests_state_may_be_ignored() -> None:
    assert job().waiting_key(View(expected_tokens=1)) == 10
    assert job(trust_requests=False, initial_tokens=50).waiting_key(View(expected_tokens=1)) == 108


def test_the_rest_is_what_was_expected_less_what_was_generated() -> None:
    policy = remaining(input_weight=1.0, output_weight=2.0)
    running = [
        View(0, expected_tokens=100, num_output_tokens=90, num_computed_tokens=98),
        View(1, expected_tokens=40, num_output_tokens=10, num_computed_tokens=18),
        View(2, expected_tokens=1, num_prompt_tokens=500, num_computed_tokens=20),
    ]
    policy.on_admitted(running)
    assert policy.order_running(running, 0.0) == [0, 1, 2]
    assert policy.pick_victim(running) == 2
    assert policy.waiting_key(View(expected_tokens=30, num_output_tokens=10)) == 18 + 2 * 20


def test_who_outlives_the_prediction_is_taken_to_go_on() -> None:
    policy = remaining()
    assert policy.waiting_key(View(expected_tokens=10, num_output_tokens=80)) == 88 + 2 * 20


def test_a_prediction_holds_while_the_request_runs() -> None:
    policy = remaining(initial_tokens=100)
    running = [View(0), View(1, expected_tokens=150)]
    policy.on_admitted(running)
    policy.on_finished([View(num_output_tokens=900) for _ in range(50)])
    assert policy.pick_victim(running) == 1
    policy.on_finished(running)
    assert not policy._expected


def test_who_has_several_times_as_much_left_makes_room_but_not_time_and_again() -> None:
    policy = remaining(displace_ratio=3.0, max_displacements=1)
    waiting = View(expected_tokens=46)  # 8 + 2 * 46 is 100
    assert policy.should_displace(waiting, View(expected_tokens=150, num_computed_tokens=8))
    assert not policy.should_displace(waiting, View(expected_tokens=149, num_computed_tokens=8))
    assert policy.should_displace(waiting, View(expected_tokens=150, num_computed_tokens=8, num_preemptions=1))
    assert not policy.should_displace(waiting, View(expected_tokens=150, num_computed_tokens=8, num_preemptions=2))
    assert not remaining(displace_ratio=None).should_displace(waiting, View(expected_tokens=1000))


def test_who_was_preempted_too_often_is_spared_while_there_are_others() -> None:
    policy = remaining(max_displacements=0)
    long, short = View(0, expected_tokens=900, num_preemptions=1), View(1, expected_tokens=2)
    assert policy.pick_victim([long, short]) == 1
    assert policy.pick_victim([long, View(2, expected_tokens=1, num_preemptions=1)]) == 1


# Feedback levels


def feedback(**options: object) -> MultilevelFeedbackPolicy:
    values = {"quantum": 10.0, "growth": 2.0, "num_levels": 3, "input_weight": 1.0, "output_weight": 2.0, **options}
    return MultilevelFeedbackPolicy(options=MultilevelFeedbackOptions(**values), context=CONTEXT)  # type: ignore[arg-type]


def test_requests_sink_as_they_are_served() -> None:
    policy = feedback()
    levels = [policy.waiting_key(View(num_prompt_tokens=4, num_output_tokens=count)) for count in range(20)]
    assert levels == [0 if 4 + 2 * count <= 10 else 1 if 4 + 2 * count <= 10 + 20 else 2 for count in range(20)]


def test_a_long_prompt_joins_further_down() -> None:
    assert [feedback().waiting_key(View(num_prompt_tokens=size)) for size in (1, 10, 11, 30, 31, 9999)] == [
        *(0, 0, 1, 1, 2, 2)
    ]


def test_the_deepest_goes_first_when_there_is_no_room() -> None:
    policy = feedback()
    running = [View(0, num_output_tokens=9), View(1, num_output_tokens=40), View(2, num_output_tokens=41), View(3)]
    assert policy.pick_victim(running) == 2
    assert policy.order_running([*running, View(4)], 0.0) == [0, 1, 2, 3, 4]
    assert policy.should_displace(View(), running[0])
    assert not policy.should_displace(View(num_prompt_tokens=20), running[0])


def test_who_was_displaced_too_often_stays() -> None:
    policy = feedback(max_displacements=0)
    deep = View(0, num_output_tokens=40, num_preemptions=1)
    assert not policy.should_displace(View(), deep)
    assert policy.pick_victim([deep, View(1)]) == 1
    assert policy.pick_victim([deep, View(1, num_preemptions=1)]) == 1


# Options


NONSENSE: list[tuple[str, dict[str, object]]] = [
    ("PriorityOptions", {"ageing_s": 0.0}),
    ("PriorityOptions", {"ageing_s": float("nan")}),
    ("PriorityOptions", {"max_level": -1}),
    ("ShortestJobOptions", {"patience": 0}),
    ("ShortestJobOptions", {"input_weight": 0.0}),
    ("ShortestJobOptions", {"output_weight": float("inf")}),
    ("PriorityOptions", {"max_level": 10**400}),
    ("ShortestJobOptions", {"max_classes": 3}),
    ("ShortestJobOptions", {"displace_ratio": 2.0}),
    ("ShortestRemainingOptions", {"displace_ratio": 0.5}),
    ("ShortestRemainingOptions", {"max_displacements": -1}),
    ("EarliestDeadlineOptions", {"ttft_target_s": -1.0}),
    ("EarliestDeadlineOptions", {"prefill_tokens_per_s": 0.0}),
    ("FairShareOptions", {"weights": {"a": 0.0}}),
    ("FairShareOptions", {"weights": ["a"]}),
    ("FairShareOptions", {"max_tenants": 0}),
    ("PrefixAwareOptions", {"order": "shortest"}),
    ("PrefixAwareOptions", {"patience": "long"}),
    ("MultilevelFeedbackOptions", {"growth": 1.0}),
    ("MultilevelFeedbackOptions", {"growth": 1e300}),
    ("MultilevelFeedbackOptions", {"num_levels": 0}),
    ("MultilevelFeedbackOptions", {"quantum": 0.0}),
]


@pytest.mark.parametrize(("name", "values"), NONSENSE, ids=lambda value: str(value))
def test_nonsense_is_refused_by_the_name_of_the_option(name: str, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        getattr(all_options, name)(**values)


# All orders are total: whoever is asked in whatever order gives the same.


@pytest.mark.parametrize("make", [priority, remaining, feedback])
def test_who_is_preferred_does_not_depend_on_who_is_asked_first(make) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(5)
    running = [
        View(
            arrival,
            priority=rng.randint(-2, 2),
            arrival_time=float(arrival),
            num_prompt_tokens=rng.randint(1, 60),
            expected_tokens=rng.randint(1, 90),
            num_output_tokens=rng.randint(0, 50),
            num_preemptions=rng.randint(0, 3),
        )
        for arrival in range(12)
    ]
    policy = make()
    first = running[policy.pick_victim(running)]
    order = [running[index] for index in policy.order_running(running, 0.0)]
    for _ in range(20):
        rng.shuffle(running)
        assert [running[index] for index in policy.order_running(running, 0.0)] == order
        victim = running[policy.pick_victim(running)]
        assert victim is first
