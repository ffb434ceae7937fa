"""`ThreadLink`: the engine in a thread of this process, for debuggers, plugin objects and measurements."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from vcore.engine.remote.channel import QueueChannel
from vcore.engine.remote.link import EngineLink
from vcore.engine.remote.messages import FromEngine, Shutdown, ToEngine
from vcore.engine.remote.serving import serve

if TYPE_CHECKING:
    from vcore.engine.build import Engine

__all__ = ["ThreadLink"]


class ThreadLink(EngineLink):
    """The loop and the messages of an engine process, without the process. A thread cannot be ended by force."""

    def __init__(
        self,
        build: Callable[[], Engine],
        on_message: Callable[[FromEngine], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """See `EngineLink`; `build` composes the engine, in its thread."""
        super().__init__(on_message, on_lost)
        self._build = build
        self._channel: QueueChannel | None = None
        self._ended = asyncio.Event()

    def _launch(self) -> None:
        loop = asyncio.get_running_loop()

        def in_loop(callback: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the event loop was closed before the engine was
                loop.call_soon_threadsafe(callback)

        channel = self._channel = QueueChannel(lambda message: in_loop(lambda: self._receive(message)))

        def run() -> None:
            try:
                serve(channel, self._build, owns_process=False)
            finally:
                in_loop(self._on_end)

        threading.Thread(target=run, name="vcore-engine", daemon=True).start()

    def _on_end(self) -> None:
        self._ended.set()
        self._lose("the engine's thread ended")

    def send(self, message: ToEngine) -> None:
        if self._channel is not None:
            self._channel.put(message)

    async def stop(self, grace: float) -> None:
        self._over = True
        if self._channel is None:
            return
        self._channel.put(Shutdown())
        await self._ended.wait()
