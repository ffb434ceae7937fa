"""Processes that compile beside this one: every job is done by somebody, once, whatever becomes of them."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from triton import knobs

from vcore.ops.triton import compile_ahead, compile_worker, compile_workers, gates
from vcore.ops.triton.compile_workers import CompileWorkers, KernelRequest, cache_is_empty

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TARGET = ("cuda", 90, 32)


class Process:
    def wait(self) -> int:
        return 0


@pytest.fixture
def pair() -> Iterator[tuple[CompileWorkers, socket.socket]]:
    """Workers whose end of the socket is the test's."""
    workers: Any = object.__new__(CompileWorkers)
    workers._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    workers._socket.settimeout(0.01)
    workers._process = Process()
    workers.are_there = False
    with theirs:
        yield workers, theirs
    workers.close()


def work_on(workers: CompileWorkers, jobs: deque[int]) -> list[int]:
    """What was finished, in order."""
    finished: list[int] = []
    workers.work_on(
        jobs, lambda job: KernelRequest("module", f"kernel_{job}", "{}", TARGET), finished.append, lambda: True
    )
    return finished


def started(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize("fails", [False, True])
def test_all_is_shared_out_and_answered(
    pair: tuple[CompileWorkers, socket.socket], monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    compiled: list[Any] = []

    def compile_kernel(*kernel: Any) -> None:
        compiled.append(kernel)
        if fails:
            raise ValueError("no such kernel")

    monkeypatch.setattr(compile_worker, "compile_kernel", compile_kernel)
    workers, theirs = pair
    threads = [started(lambda: compile_worker.serve(theirs)) for _ in range(3)]
    assert sorted(work_on(workers, deque(range(20)))) == list(range(20))
    assert sorted(compiled) == sorted(("module", f"kernel_{i}", "{}", list(TARGET)) for i in range(20))
    workers.close()
    for thread in threads:
        thread.join()  # they end where nobody is left to ask


def test_what_is_left_when_they_end_is_left_to_others(pair: tuple[CompileWorkers, socket.socket]) -> None:
    workers, theirs = pair
    jobs = deque(range(5))

    def one_and_no_more() -> None:
        theirs.send(b"0")
        theirs.recv(compile_worker.MOST_BYTES)
        theirs.shutdown(socket.SHUT_RDWR)

    thread = started(one_and_no_more)
    assert not workers.are_there
    assert work_on(workers, jobs) == [0]  # taken back
    assert list(jobs) == [1, 2, 3, 4]
    assert workers.are_there
    thread.join()


def test_a_job_that_nobody_answers_is_taken_back(
    pair: tuple[CompileWorkers, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_workers, "_PATIENCE_SECONDS", 0.0)
    workers, theirs = pair
    theirs.send(b"0")
    jobs = deque([7])
    assert work_on(workers, jobs) == [7]
    assert not jobs


def test_nobody_waits_for_workers_that_come_too_late(pair: tuple[CompileWorkers, socket.socket]) -> None:
    workers, _ = pair
    jobs = deque([1, 2])
    thread = started(lambda: [jobs.popleft() for _ in range(2)] and None)
    assert work_on(workers, jobs) == []
    thread.join()


def test_they_work_while_jobs_are_still_added(
    pair: tuple[CompileWorkers, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_worker, "compile_kernel", lambda *kernel: None)
    workers, theirs = pair
    threads = [started(lambda: compile_worker.serve(theirs)) for _ in range(2)]
    jobs, finished, all_there = deque([0]), [], threading.Event()

    def finish(job: int) -> None:  # each brings the next
        finished.append(job)
        if job < 9:
            jobs.append(job + 1)
        else:
            all_there.set()

    request = KernelRequest("module", "kernel", "{}", TARGET)
    workers.work_on(jobs, lambda job: request, finish, all_there.is_set)
    assert finished == list(range(10))
    workers.close()
    for thread in threads:
        thread.join()


def test_few_processors_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with pytest.raises(OSError, match="4 processors"):
        CompileWorkers()


def test_what_an_empty_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    assert cache_is_empty()
    for index in range(40):
        (tmp_path / "cache" / str(index)).mkdir(parents=True)
    assert not cache_is_empty()


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_what_they_compile_is_found_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compile_workers, "_LEAST_PROCESSORS", 1)
    monkeypatch.setattr(compile_ahead, "_THREADS_BESIDE_WORKERS", 0)
    found: list[bool] = []
    monkeypatch.setattr(knobs.compilation, "listener", lambda *, cache_hit, **_: found.append(cache_hit))
    x, workers = torch.randn(3, 96, device="cuda", dtype=torch.bfloat16), CompileWorkers()
    out = torch.empty(3, 48, device="cuda", dtype=torch.bfloat16)
    try:
        with compile_ahead.compiled_ahead(x.device, workers):
            gates._gate_kernel[(3, 1)](out, x, 48, 96, GELU=False, BLOCK=64, EARLY=False)
    finally:
        workers.close()
    assert found == [True]
    gates._gate_kernel[(3, 1)](out, x, 48, 96, GELU=False, BLOCK=64, EARLY=False)
    assert len(found) == 1
    torch.testing.assert_close(out, gates.silu_and_mul(x))
