"""`Admission`: whether a request may come in. It counts what is open here, and asks the engine for its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vcore.server.errors import ApiError

if TYPE_CHECKING:
    from vcore.server.engine_client import EngineClient

__all__ = ["Admission"]

_RETRY_QUEUE_S = 1
_RETRY_ENGINE_S = 5

Stop = Callable[[ApiError], None]
"""Ends an open request with an error."""


class Admission:
    """Lets requests in while there is room, the engine serves, and the server does not drain."""

    def __init__(self, engine: EngineClient, *, max_running: int, max_queue: int) -> None:
        """Begin with no requests.

        Args:
            engine: asked for its state.
            max_running: how many samples the engine runs at a time.
            max_queue: how many may wait beside them.
        """
        self._engine = engine
        self.max_running = max_running
        """How many samples the engine runs at a time."""
        self._max_samples = max_running + max_queue
        self._num_samples = 0
        self._open: set[Stop] = set()
        self._draining = False

    @property
    def num_requests(self) -> int:
        """How many requests are open."""
        return len(self._open)

    @property
    def draining(self) -> bool:
        """Whether nothing more is let in."""
        return self._draining

    @contextmanager
    def admit(self, num_samples: int, stop: Stop) -> Iterator[None]:
        """Count a request of so many samples as open while the block runs.

        Raises:
            ApiError: 429 if there is no room now, 400 if there never is, 503 if the engine or the server does not
                serve now.
        """
        self._check(num_samples)
        self._num_samples += num_samples
        self._open.add(stop)
        try:
            yield
        finally:
            self._num_samples -= num_samples
            self._open.discard(stop)

    def drain(self) -> None:
        """Let nothing more in; what is open goes on."""
        self._draining = True

    def stop_all(self, error: ApiError) -> None:
        """End every open request with `error`."""
        for stop in list(self._open):
            stop(error)

    def check_engine(self) -> None:
        """Refuse what needs the engine while it does not serve.

        Raises:
            ApiError: 503.
        """
        if self._draining:
            raise _unavailable("the server is shutting down", "shutting_down")
        status = self._engine.health()
        if status.state != "ready":
            reason = "" if status.reason is None else f": {status.reason}"
            raise _unavailable(f"the engine is {status.state}{reason}", f"engine_{status.state}")

    def _check(self, num_samples: int) -> None:
        self.check_engine()
        if num_samples > self._max_samples:
            raise ApiError(
                400,
                f"the request asks for {num_samples} samples, prompts times n, and the server takes at most "
                f"{self._max_samples} at a time: split it",
                param="n",
            )
        if self._num_samples + num_samples > self._max_samples:
            raise ApiError(
                429,
                f"the queue is full: {self._num_samples} samples run or wait, of at most {self._max_samples}; "
                "try again later",
                type="rate_limit_error",
                code="queue_full",
                retry_after=_RETRY_QUEUE_S,
            )


def _unavailable(message: str, code: str) -> ApiError:
    return ApiError(503, message, type="server_error", code=code, retry_after=_RETRY_ENGINE_S)
