"""`RequestPreparer` and `ProcessorPool`: slow work of logits processors, done once, off the step loop."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from vcore.engine.preparation import RequestPreparer
from vcore.engine.processor_pool import ProcessorPool
from vcore.engine.request import EngineRequest
from vcore.errors import PluginBrokenError, RequestError
from vcore.interfaces.logits import LogitsProcessor, ProcessorRow
from vcore.sampling_params import SamplingParams


class Plain(LogitsProcessor):
    """Prepares nothing."""

    def apply(self, logits: torch.Tensor, rows: Sequence[ProcessorRow]) -> torch.Tensor:
        return logits


class Slow(Plain):
    """Prepares a list of what it was given; fails as it is told to."""

    def __init__(self) -> None:
        self.given: list[Mapping[str, Any]] = []

    def prepare(self, arguments: Mapping[str, Any]) -> object:
        fault = arguments.get("fault")
        if fault is not None:
            raise fault
        self.given.append(arguments)
        return [arguments]


def request(*processors: Any, request_id: str = "r") -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=[1],
        params=SamplingParams(logits_processors=processors),
        max_tokens=1,
        arrival_time=0.0,
    )


def slow(**options: Any) -> dict[str, Any]:
    return {"name": "slow", "options": options}


@pytest.fixture
def processors() -> dict[str, LogitsProcessor]:
    return {"slow": Slow(), "plain": Plain()}


@pytest.fixture
def preparer(processors: dict[str, LogitsProcessor]) -> RequestPreparer:
    return RequestPreparer(processors.__getitem__, max_kept=2)


def test_requests_without_processors_pass_as_they_are(preparer: RequestPreparer) -> None:
    plain = request()
    assert not preparer.is_needed(plain)
    assert preparer.prepare_all([plain])[0] is plain
    unprepared = request("plain")
    assert preparer.is_needed(unprepared)
    assert preparer.prepare(unprepared) is unprepared


def test_what_is_prepared_goes_with_the_request(preparer: RequestPreparer) -> None:
    prepared = preparer.prepare(request("plain", slow(a=1)))
    assert prepared.prepared == {"slow": [{"a": 1}]}
    assert prepared.request_id == "r"


def test_samples_and_later_requests_of_equal_arguments_share_it(
    preparer: RequestPreparer, processors: dict[str, Any]
) -> None:
    first, second = preparer.prepare_all([request(slow(a=1)), request(slow(a=1))])
    later = preparer.prepare(request(slow(a=1)))
    assert first.prepared is not None
    assert second.prepared is not None
    assert later.prepared is not None
    assert first.prepared["slow"] is second.prepared["slow"] is later.prepared["slow"]
    assert len(processors["slow"].given) == 1


def test_only_the_latest_are_kept(preparer: RequestPreparer, processors: dict[str, Any]) -> None:
    for value in (1, 2, 1, 3, 1, 2):
        preparer.prepare(request(slow(a=value)))
    assert [given["a"] for given in processors["slow"].given] == [1, 2, 3, 2]


def test_arguments_that_cannot_be_compared_are_prepared_each_time(
    preparer: RequestPreparer, processors: dict[str, Any]
) -> None:
    for _ in range(2):
        preparer.prepare(request(slow(a=threading.Lock())))
    assert len(processors["slow"].given) == 2


def test_a_refusal_is_the_processors_own(preparer: RequestPreparer) -> None:
    with pytest.raises(RequestError, match=r"^no good$") as caught:
        preparer.prepare(request(slow(fault=RequestError("no good", param="grammar"))))
    assert caught.value.param == "grammar"


@pytest.mark.parametrize("fault", [KeyError("x"), SystemExit(3)])
def test_a_fault_ends_this_request_alone(
    preparer: RequestPreparer, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RequestError, match=f"'slow' cannot prepare this request: {type(fault).__name__}") as caught:
        preparer.prepare(request(slow(fault=fault)))
    assert caught.value.param == "logits_processors"
    assert "'slow' failed to prepare" in caplog.text


def test_a_processor_that_cannot_be_made_is_a_request_error() -> None:
    def make(name: str) -> LogitsProcessor:
        raise PluginBrokenError("it does not import")

    with pytest.raises(RequestError, match="'slow': it does not import"):
        RequestPreparer(make).prepare(request(slow()))


def test_a_pool_makes_each_processor_once_whoever_asks() -> None:
    made: list[str] = []
    together = threading.Barrier(4, timeout=20)

    def make(name: str) -> LogitsProcessor:
        made.append(name)
        return Plain()

    pool = ProcessorPool(make)

    def get(_: int) -> LogitsProcessor:
        together.wait()
        return pool.get("a")

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(get, range(4)))
    assert made == ["a"]
    assert all(one is found[0] for one in found)
    assert pool.another().get("a") is not found[0]
