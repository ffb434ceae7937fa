"""`Mailbox`: from several tasks to one, with little room, so that a slow reader slows the writers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Items in the order of their arrival, and at most one error, which comes last."""

    def __init__(self, room: int) -> None:
        """Begin empty, with `room` for so many items."""
        self._room = room
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    async def put(self, item: T) -> None:
        """Add an item once there is room."""
        while len(self._items) >= self._room:
            self._taken.clear()
            await self._taken.wait()
        self._items.append(item)
        self._arrived.set()

    def fail(self, error: BaseException) -> None:
        """Let `get` raise `error` once the items are taken. The first error counts."""
        if self._error is None:
            self._error = error
        self._arrived.set()

    async def get(self) -> T:
        """The next item, once there is one; or the error, raised."""
        while self._error is None and not self._items:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._items:
            assert self._error is not None
            raise self._error
        self._taken.set()
        return self._items.popleft()
