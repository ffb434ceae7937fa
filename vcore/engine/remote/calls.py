"""`Calls`: questions to the engine that wait for their answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from vcore.engine.remote.messages import Call, CallName, Reply, ToEngine
from vcore.errors import EngineDeadError

__all__ = ["Calls"]


class Calls:
    """All questions that were not answered yet. Belongs to the thread of the event loop."""

    def __init__(self, send: Callable[[ToEngine], None]) -> None:
        """Ask by `send`."""
        self._send = send
        self._serial = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, name: CallName, folder: str | None = None) -> Reply:
        """Send a `Call`, and wait for its answer: at most for the step that is being computed, and what is asked for.

        Raises:
            VcoreError: what the engine raised, or `EngineDeadError` if it ended meanwhile.
        """
        serial = next(self._serial)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[serial] = answer
        try:
            self._send(Call(serial, name, folder))
            reply = await answer
        finally:
            del self._waiting[serial]
        if reply.error is not None:
            raise reply.error.error()
        return reply

    def take(self, reply: Reply) -> None:
        """An answer has come."""
        answer = self._waiting.get(reply.serial)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def fail_all(self, reason: str) -> None:
        """The engine is gone."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EngineDeadError(f"the engine ended before it answered: {reason}"))
