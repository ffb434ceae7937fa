"""`LoadRunner`: sends requests when they are due, whatever the server does (open loop), and records what comes back.

A generator that waits for answers before it sends more asks for less just when the server is slow, and so hides the
latencies that it is there to find. Here times are fixed beforehand; a request that is sent late, because the generator
itself is busy, has its lateness in its latencies, and the report says how late they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.target import Target, TargetError

__all__ = ["LoadRun", "LoadRunner"]


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What was seen of one load."""

    records: list[RequestRecord]
    """In the order in which they were due."""
    began: float
    ended: float
    peak_in_flight: int
    """Most requests that were with the server at a time."""

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first arrival to the last end."""
        return self.ended - self.began


class LoadRunner:
    """Puts loads on one target."""

    def __init__(self, target: Target, *, max_concurrency: int | None = None, timeout_s: float = 600.0) -> None:
        """Args:
        target: entered already.
        max_concurrency: requests at the server at a time; others are held back until one ends.
        timeout_s: after which a request has failed.
        """
        self._target = target
        self._places = None if max_concurrency is None else asyncio.Semaphore(max_concurrency)
        self._timeout_s = timeout_s
        self._in_flight = 0
        self._peak = 0

    async def run(self, requests: Iterable[LoadRequest], offsets: Sequence[float]) -> LoadRun:
        """Send each request at its offset and wait until all have ended.

        Args:
            requests: taken one by one, each before its time, so that they may be made on the way.
            offsets: seconds from the start, ascending; one a request.

        Returns:
            A record of every request, failed ones too.
        """
        self._peak = 0
        records: list[RequestRecord] = []
        with _no_collection_of_what_is_there():
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for request, offset in zip(requests, offsets, strict=True):
                    record = RequestRecord(due=began + offset, num_wanted_tokens=request.num_output_tokens)
                    records.append(record)
                    wait = record.due - time.monotonic()
                    if wait > 0:
                        await asyncio.sleep(wait)
                    group.create_task(self._serve(request, record))
            return LoadRun(records, began, time.monotonic(), self._peak)

    async def _serve(self, request: LoadRequest, record: RequestRecord) -> None:
        record.issued = time.monotonic()
        async with self._places or contextlib.nullcontext():
            record.started = time.monotonic() if self._places else record.issued
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._target.run(request, record)
                if not record.times:
                    raise TargetError("empty", "it ended without a token")
            except TargetError as error:
                record.error, record.message = error.kind, str(error)
            except TimeoutError:
                record.error, record.message = "timeout", f"it took more than {self._timeout_s:g} s"
            finally:
                record.ended = time.monotonic()
                self._in_flight -= 1


@contextlib.contextmanager
def _no_collection_of_what_is_there() -> Iterator[None]:
    """The garbage collector looks at new objects only: a walk over all that torch has made takes tens of ms."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
