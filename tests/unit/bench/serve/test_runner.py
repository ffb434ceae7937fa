"""Open loop: requests are sent when they are due, whatever becomes of the others; times here are the fake clock's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.runner import LoadRun, LoadRunner
from vcore.bench.serve.target import TargetError, TargetInfo

Serve = Callable[[LoadRequest, RequestRecord], Awaitable[None]]


class FakeTarget:
    """Serves as it is told."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve

    async def __aenter__(self) -> FakeTarget:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def info(self) -> TargetInfo:
        return TargetInfo(name="fake", model="fake")

    async def run(self, request: LoadRequest, record: RequestRecord) -> None:
        await self._serve(request, record)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only by waiting, and at once."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready  # type: ignore[attr-defined]
        if scheduled and not ready:
            self.now = max(self.now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def load(
    serve: Serve,
    offsets: list[float],
    monkeypatch: pytest.MonkeyPatch,
    *,
    max_concurrency: int | None = None,
    timeout_s: float = 100.0,
) -> LoadRun:
    loop = VirtualLoop()
    monkeypatch.setattr("vcore.bench.serve.runner.time.monotonic", loop.time)
    requests = [LoadRequest(token_ids=[index], num_output_tokens=1) for index in range(len(offsets))]
    runner = LoadRunner(FakeTarget(serve), max_concurrency=max_concurrency, timeout_s=timeout_s)
    try:
        return loop.run_until_complete(runner.run(requests, offsets))
    finally:
        loop.close()


async def slow(_: LoadRequest, record: RequestRecord) -> None:
    """Ten seconds a request."""
    await asyncio.sleep(10)
    record.add(asyncio.get_running_loop().time(), 1)


def test_a_slow_server_delays_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    run = load(slow, [0.0, 1.0, 1.0, 3.0], monkeypatch)
    assert [record.started - run.began for record in run.records] == pytest.approx([0, 1, 1, 3])
    assert [record.ttft for record in run.records] == pytest.approx([10] * 4)
    assert [record.lag for record in run.records] == pytest.approx([0] * 4)
    assert run.peak_in_flight == 4
    assert run.elapsed_s == pytest.approx(13)


def test_a_limit_holds_requests_back_and_the_wait_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    run = load(slow, [0.0, 1.0, 2.0], monkeypatch, max_concurrency=2)
    assert [record.held for record in run.records] == pytest.approx([0, 0, 8])
    assert [record.ttft for record in run.records] == pytest.approx([10] * 3)
    assert run.peak_in_flight == 2


def test_a_busy_generator_is_late_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blocks(request: LoadRequest, record: RequestRecord) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if request.token_ids == [0]:
            loop.now += 5  # as a computation in the event loop would take it
        record.add(loop.time(), 1)

    run = load(blocks, [0.0, 1.0], monkeypatch)
    assert run.records[1].lag == pytest.approx(4)
    assert run.records[1].ttft == pytest.approx(4)


def test_failures_and_timeouts_leave_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mixed(request: LoadRequest, record: RequestRecord) -> None:
        if request.token_ids == [0]:
            raise TargetError("http_500", "broken")
        if request.token_ids == [1]:
            await asyncio.sleep(1000)
        if request.token_ids == [2]:
            return
        await slow(request, record)

    run = load(mixed, [0.0, 0.0, 0.0, 1.0], monkeypatch)
    assert [record.error for record in run.records] == ["http_500", "timeout", "empty", None]
    assert run.records[0].message == "broken"
    assert run.records[1].ended - run.began == pytest.approx(100)


def test_a_bug_in_a_target_is_no_failed_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: LoadRequest, __: RequestRecord) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        load(broken, [0.0], monkeypatch)


def test_requests_are_made_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = VirtualLoop()
    monkeypatch.setattr("vcore.bench.serve.runner.time.monotonic", loop.time)
    made_at = []

    def requests() -> object:
        for index in range(3):
            made_at.append(loop.time() - 1000)
            yield LoadRequest(token_ids=[index], num_output_tokens=1)

    try:
        loop.run_until_complete(LoadRunner(FakeTarget(slow)).run(requests(), [0.0, 2.0, 5.0]))  # type: ignore[arg-type]
    finally:
        loop.close()
    assert made_at == pytest.approx([0, 0, 2])
