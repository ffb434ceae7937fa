"""The scheduler's numbers, and the executor that runs so many ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vcore.config import SchedulerConfig
from vcore.engine.resolve import Resolution
from vcore.engine.resolve.limits import resolve_limits
from vcore.errors import ConfigError
from vcore.plugins.catalog import Catalog


@pytest.mark.parametrize(
    ("settings", "device", "length", "expected"),
    [
        ({}, "cpu", 100, (256, 2048)),
        ({}, "cuda", 100, (256, 8192)),
        ({"max_num_seqs": 4000}, "cpu", 100, (4000, 4000)),
        ({"max_num_batched_tokens": 16}, "cpu", 100, (16, 16)),
        ({"max_num_batched_tokens": 999}, "cpu", 100, (256, 999)),
        ({"chunked_prefill": False}, "cpu", 5000, (256, 5000)),
        ({"chunked_prefill": False}, "cpu", 100, (256, 2048)),
        ({"max_num_seqs": 4, "max_num_batched_tokens": 4}, "cpu", 100, (4, 4)),
    ],
)
def test_auto(settings: dict[str, Any], device: str, length: int, expected: tuple[int, int]) -> None:
    limits, decisions = resolve_limits(SchedulerConfig(**settings), device_type=device, max_model_len=length)
    assert (limits.max_num_seqs, limits.max_num_batched_tokens) == expected
    assert {decision.key.removeprefix("scheduler.") for decision in decisions} == {
        key for key in ("max_num_seqs", "max_num_batched_tokens") if key not in settings
    }


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"max_num_seqs": 5, "max_num_batched_tokens": 4}, "max_num_batched_tokens=4 below max_num_seqs=5"),
        (
            {"chunked_prefill": False, "long_prefill_threshold": 8},
            "long_prefill_threshold=8 with chunked_prefill",
        ),
        ({"chunked_prefill": False, "max_num_batched_tokens": 99}, "max_num_batched_tokens=99.*max_model_len=100"),
    ],
)
def test_contradictions_are_refused_with_the_numbers(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        resolve_limits(SchedulerConfig(**settings), device_type="cpu", max_model_len=100)


def test_the_executor_must_run_the_ranks(
    resolve_model: Callable[..., Resolution],
    make_catalog: Callable[..., Catalog],
    decided: Callable[..., dict[str, Any]],
) -> None:
    assert resolve_model().executor.name == "uniproc"
    two = resolve_model({"runtime.tensor_parallel_size": 2})
    assert two.executor.name == "multiproc"
    rejected = dict(decided(two)["executor"].rejected)
    assert rejected["executor/uniproc@vcore-engine"] == ("runs at most 1 rank",)
    with pytest.raises(ConfigError, match=r"no installed executor runs 9 ranks; installed: .*multiproc.*most 8 ranks"):
        resolve_model({"runtime.tensor_parallel_size": 9})
    with pytest.raises(ConfigError, match=r"'uniproc'.* runs at most 1 rank, but runtime\.tensor_parallel_size is 2"):
        resolve_model({"runtime.tensor_parallel_size": 2, "executor": "uniproc"})
    with pytest.raises(ConfigError, match="installed: none"):
        resolve_model(using=make_catalog(without=("uniproc", "multiproc")))
