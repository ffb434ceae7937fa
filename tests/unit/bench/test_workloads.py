"""Workloads have the lengths that they promise."""

from __future__ import annotations

import pytest

from vcore.bench.workloads import WORKLOADS, make_workload
from vcore.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "count", "prompt", "output"),
    [("single", 1, 128, 256), ("shared_prefix", 256, 2112, 64), ("long_prefill", 16, 8000, 16)],
)
def test_fixed_lengths(name: str, count: int, prompt: int, output: int) -> None:
    requests = make_workload(name, vocab_size=100, seed=1)
    assert len(requests) == count
    assert {len(request.prompt_token_ids) for request in requests} == {prompt}
    assert {request.num_output_tokens for request in requests} == {output}
    assert all(0 <= token < 100 for request in requests for token in request.prompt_token_ids)


def test_nano_is_uniform_between_its_bounds_and_the_same_every_time() -> None:
    first, second = (make_workload("nano", vocab_size=1000, seed=seed) for seed in (1, 2))
    assert len(first) == 256
    sizes = [(len(request.prompt_token_ids), request.num_output_tokens) for request in first]
    assert all(100 <= size <= 1024 for pair in sizes for size in pair)
    assert 480 < sum(prompt for prompt, _ in sizes) / 256 < 640
    assert sizes == [(len(request.prompt_token_ids), request.num_output_tokens) for request in second]
    assert first[0].prompt_token_ids != second[0].prompt_token_ids


def test_shared_prefix_is_shared_and_the_rest_is_not() -> None:
    one, two = make_workload("shared_prefix", vocab_size=1000, seed=3, num_requests=2)
    assert one.prompt_token_ids[:2048] == two.prompt_token_ids[:2048]
    assert one.prompt_token_ids[2048:] != two.prompt_token_ids[2048:]


@pytest.mark.parametrize("name", WORKLOADS)
def test_any_workload_scales(name: str) -> None:
    assert len(make_workload(name, vocab_size=10, seed=0, num_requests=3)) == 3


def test_unknown_workload_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no workload 'mega'; there are nano, single"):
        make_workload("mega", vocab_size=10, seed=0)
