"""`Preparation`: what a request needs before it enters the core and takes long, in threads beside the steps."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from vcore.engine.request import EngineRequest

__all__ = ["Preparation", "PrepareCallback", "PreparedRequests"]

PrepareCallback = Callable[[Sequence[EngineRequest]], Sequence[EngineRequest]]
"""Makes ready the samples of one request, in any thread; raises `RequestError` if they cannot be served."""

_NUM_THREADS = 2


@dataclass(slots=True)
class PreparedRequests:
    """The samples of one request, ready for the core, or why they are not."""

    request_ids: tuple[str, ...]
    """Of all samples."""
    requests: list[EngineRequest] = field(default_factory=list)
    """Those that were not aborted meanwhile."""
    error: Exception | None = None


class Preparation:
    """Prepares requests in a few threads. All methods belong to the thread of the loop."""

    def __init__(self, prepare: PrepareCallback, wake: Callable[[], None]) -> None:
        """Start no thread yet.

        Args:
            prepare: does it.
            wake: called, from any thread, when something has become ready.
        """
        self._prepare = prepare
        self._wake = wake
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="vcore-prepare")
        self._jobs: dict[str, Future[Sequence[EngineRequest]]] = {}
        """By the id of each sample that is being prepared."""
        self._done: queue.SimpleQueue[tuple[tuple[str, ...], Future[Sequence[EngineRequest]]]] = queue.SimpleQueue()

    def submit(self, requests: Sequence[EngineRequest]) -> None:
        """Prepare the samples of one request; `take` gives them back."""
        request_ids = tuple(request.request_id for request in requests)
        job = self._threads.submit(self._prepare, requests)
        self._jobs.update(dict.fromkeys(request_ids, job))
        job.add_done_callback(lambda job: self._finish(request_ids, job))

    def _finish(self, request_ids: tuple[str, ...], job: Future[Sequence[EngineRequest]]) -> None:
        self._done.put((request_ids, job))
        self._wake()

    def is_known(self, request_id: str) -> bool:
        """Whether this sample is being prepared."""
        return request_id in self._jobs

    def abort(self, request_ids: Sequence[str]) -> list[str]:
        """Forget samples; those that were being prepared are returned. Work that a thread has begun goes on."""
        dropped = {request_id: job for request_id in request_ids if (job := self._jobs.pop(request_id, None))}
        wanted = set(self._jobs.values())
        for job in set(dropped.values()) - wanted:
            job.cancel()
        return list(dropped)

    def take(self) -> list[PreparedRequests]:
        """What has become ready since the last call."""
        taken: list[PreparedRequests] = []
        while not self._done.empty():
            request_ids, job = self._done.get_nowait()
            wanted = {request_id for request_id in request_ids if self._jobs.get(request_id) is job}
            for request_id in wanted:
                del self._jobs[request_id]
            if not wanted:
                continue
            error = job.exception()
            if error is None:
                ready = [request for request in job.result() if request.request_id in wanted]
                taken.append(PreparedRequests(request_ids, ready))
            else:
                taken.append(PreparedRequests(request_ids, error=_exception(error)))
        return taken

    def close(self) -> None:
        """Start nothing more; work that has begun ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _exception(error: BaseException) -> Exception:
    """A plugin's SystemExit is a failure like any other."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
