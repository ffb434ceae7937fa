"""`CompileWorkers`: processes that compile kernels beside this one.

Threads alone do not get far: a third of a kernel's time is Python's, which one thread computes at a time. What is
compiled travels through Triton's cache on disk; requests and answers, through one socket that all workers read from,
each message by one of them.

    worker ── 0 ──────────────────────────────>    there is one who works
           <───────── [7, module, name, ...] ──    a kernel, for whoever is free
           ── 7 ──────────────────────────────>    done, or given up; and free
"""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton import knobs

__all__ = ["CompileWorkers", "KernelRequest", "cache_is_empty"]

_SCRIPT = str(Path(__file__).with_name("run_compile_worker.py"))
_FEW_FILES = 32
"""An engine's kernels are more than that."""
_LEAST_PROCESSORS = 8
_MOST_WORKERS = 12
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 60.0
"""No kernel takes as long as that to compile."""


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """A kernel to compile, as `compile_worker.compile_kernel` takes it."""

    module: str
    name: str
    specialization: str
    target: tuple[str | int, ...]

    def encode(self, number: int) -> bytes:
        """The message."""
        return json.dumps([number, self.module, self.name, self.specialization, self.target]).encode()


def cache_is_empty() -> bool:
    """Whether Triton's cache holds next to nothing, so that an engine's kernels will all have to be compiled."""
    try:
        return len(os.listdir(knobs.cache.dir)) < _FEW_FILES
    except OSError:
        return True


class CompileWorkers:
    """They start on their own, which takes them a second or two, and end with `close`, or with this process."""

    def __init__(self) -> None:
        """Start them.

        Raises:
            OSError: that cannot be done here.
        """
        processors = os.cpu_count() or 1
        if processors < _LEAST_PROCESSORS:
            raise OSError(f"{processors} processors are too few for processes that compile")
        count = min(_MOST_WORKERS, processors // 2 + 4)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", _SCRIPT, str(theirs.fileno()), str(count)],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._socket.settimeout(_POLL_SECONDS)
        self.are_there = False
        """Whether one has begun to work."""

    def work_on(
        self,
        jobs: deque[Any],
        request_of: Callable[[Any], KernelRequest],
        finish: Callable[[Any], object],
        are_all_there: Callable[[], bool],
    ) -> None:
        """Have them do what others have not taken from `jobs`, from its beginning, until nothing is left, or they are.

        Args:
            jobs: others may take from it meanwhile, and add to it.
            request_of: what a job asks for.
            finish: called with each job that they have done, or will not do.
            are_all_there: whether no more will be added.
        """
        handed: dict[int, Any] = {}
        num_free, number, heard = 0, 0, time.monotonic()
        # Asked in this order: what is added last is seen once nothing more will be.
        while not are_all_there() or jobs or handed:
            if num_free and jobs:
                with suppress(IndexError):
                    job = jobs.popleft()
                    num_free, number, heard = num_free - 1, number + 1, time.monotonic()
                    handed[number] = job
                    if not self._send(request_of(job).encode(number)):
                        break
                continue
            try:
                answer = self._socket.recv(64)
            except TimeoutError:
                if handed and time.monotonic() - heard > _PATIENCE_SECONDS:
                    break
                continue
            except OSError:
                break
            if not answer:
                break
            self.are_there, heard, num_free = True, time.monotonic(), num_free + 1
            if (done := handed.pop(int(answer), None)) is not None:
                finish(done)
        for job in handed.values():
            finish(job)

    def _send(self, message: bytes) -> bool:
        try:
            self._socket.send(message)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let them end."""
        self._socket.close()
        threading.Thread(target=self._process.wait, daemon=True).start()
