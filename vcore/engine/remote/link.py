"""`EngineLink`: the asyncio side's end of the line to one engine, from its start to its end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from vcore.engine.remote.messages import EngineDied, FromEngine, Ready, StartFailed, ToEngine
from vcore.errors import EngineDeadError

__all__ = ["EngineLink", "LinkFactory"]


class EngineLink(ABC):
    """Starts one engine, once, and carries messages. Belongs to the event loop that `start` runs in."""

    def __init__(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[str], None]) -> None:
        """Start nothing yet.

        Args:
            on_message: called with what the engine says once it is ready, in the event loop.
            on_lost: called once, with the cause, if the engine ends by itself after it was ready.
        """
        self._on_message = on_message
        self._on_lost = on_lost
        self._ready: asyncio.Future[Ready] | None = None
        self._over = False

    async def start(self) -> Ready:
        """Start the engine and wait until it is composed. Cancelled or failed, it leaves nothing behind.

        Raises:
            VcoreError: what the engine says of why it could not be composed.
            EngineDeadError: it ended without a word.
        """
        self._ready = asyncio.get_running_loop().create_future()
        try:
            self._launch()
            return await self._ready
        except BaseException:
            self._over = True
            await self.stop(grace=0.0)
            raise

    @property
    def pid(self) -> int | None:
        """The engine's process, if it has one of its own."""
        return None

    @abstractmethod
    def _launch(self) -> None:
        """Start the engine; what it says goes to `_receive`, and that it is gone to `_lose`, in the event loop."""

    @abstractmethod
    def send(self, message: ToEngine) -> None:
        """Send a message; lost if the engine is gone, which `on_lost` tells of. Never waits.

        Raises:
            ValueError, TypeError, OverflowError: the message cannot be encoded; nothing was sent.
        """

    @abstractmethod
    async def stop(self, grace: float) -> None:
        """End the engine, by force if it does not end by itself. Harmless when called again.

        Args:
            grace: seconds that it may take to end by itself.
        """

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Ready():
                if self._ready is not None and not self._ready.done():
                    self._started()
                    self._ready.set_result(message)
            case StartFailed(error):
                self._fail_start(error.error())
            case EngineDied(reason):
                self._lose(f"the engine stopped: {reason}")
            case _ if not self._over:
                self._on_message(message)

    def _started(self) -> None:
        """The engine is ready: what was needed only to get there may go."""

    def _lose(self, reason: str) -> None:
        if self._fail_start(EngineDeadError(reason)) or self._over:
            return
        self._over = True
        self._on_lost(reason)

    def _fail_start(self, error: Exception) -> bool:
        """Whether `error` ended the start."""
        if self._ready is None or self._ready.done():
            return False
        self._ready.set_exception(error)
        return True


LinkFactory = Callable[[Callable[[FromEngine], None], Callable[[str], None]], EngineLink]
"""Makes the link to a new engine, from its `on_message` and `on_lost`."""
