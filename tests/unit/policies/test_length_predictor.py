"""What is predicted of requests, and what is remembered of those that ended."""

from __future__ import annotations

from policy_view import View
from vcore_policies.scheduling.length_predictor import LengthPredictor


def test_it_begins_with_the_constant_cut_to_what_a_request_may_generate() -> None:
    predictor = LengthPredictor(100, 50)
    assert predictor.predict(View()) == 100
    assert predictor.predict(View(max_tokens=30)) == 30


def test_an_estimate_is_the_mean_shrunk_towards_the_coarser_class() -> None:
    predictor = LengthPredictor(100, 50)
    for length in (10, 20):
        predictor.learn(View(num_output_tokens=length))
    estimate = 100.0
    for _ in range(4):  # all, tenant, max_tokens, prompt: two each, whose mean is 15
        estimate = (2 * 15 + 4 * estimate) / 6
    assert predictor.predict(View()) == estimate


def test_classes_are_told_apart_by_tenant_limit_and_prompt() -> None:
    predictor = LengthPredictor(100, 50)
    kinds = [
        {"tenant": "a", "max_tokens": 1000, "num_prompt_tokens": 8},
        {"tenant": "b", "max_tokens": 1000, "num_prompt_tokens": 8},
        {"tenant": "a", "max_tokens": 500, "num_prompt_tokens": 8},
        {"tenant": "a", "max_tokens": 1000, "num_prompt_tokens": 900},
    ]
    for _ in range(200):
        for index, kind in enumerate(kinds):
            predictor.learn(View(num_output_tokens=10 + 100 * index, **kind))  # type: ignore[arg-type]
    for index, kind in enumerate(kinds):
        assert abs(predictor.predict(View(**kind)) - (10 + 100 * index)) < 10  # type: ignore[arg-type]


def test_an_unknown_tenant_is_taken_for_the_average() -> None:
    predictor = LengthPredictor(100, 50)
    for _ in range(200):
        predictor.learn(View(tenant="a", num_output_tokens=20))
    assert 20 < predictor.predict(View(tenant="b")) < 25


def test_it_follows_a_change() -> None:
    predictor = LengthPredictor(100, 50)
    for length in [20] * 5000 + [300] * 1000:
        predictor.learn(View(num_output_tokens=length))
    assert predictor.predict(View()) > 280


def test_who_generated_nothing_tells_nothing() -> None:
    predictor = LengthPredictor(100, 50)
    predictor.learn(View(num_output_tokens=0))
    assert (len(predictor), predictor.predict(View())) == (0, 100)


def test_the_classes_seen_longest_ago_are_forgotten() -> None:
    predictor = LengthPredictor(100, 12)
    for index in range(1000):
        predictor.learn(View(tenant=f"t{index}", num_output_tokens=7))
        predictor.learn(View(tenant="always", num_output_tokens=500))
        assert len(predictor) <= 12
    assert predictor.predict(View(tenant="always")) > 400
