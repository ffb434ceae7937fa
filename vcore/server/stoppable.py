"""`Stoppable`: reads a generator in the reader's own task, though another may end it with an error at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

__all__ = ["Stoppable"]

T = TypeVar("T")


class Stoppable(Generic[T]):
    """The items of a generator, without a task or a queue between: an item costs its reader one wake-up."""

    def __init__(self, items: AsyncGenerator[T, None]) -> None:
        """Take over `items`, which nobody else may touch from now on."""
        self._items = items
        self._error: Exception | None = None
        self._reader: asyncio.Task[object] | None = None
        """Waits for an item."""
        self._closing: asyncio.Task[None] | None = None

    def stop(self, error: Exception) -> None:
        """Let `next` raise `error`, and close the generator, whether somebody waits for an item or not.

        Only the first error counts. Not to be called by the generator itself.
        """
        if self._error is not None:
            return
        self._error = error
        if self._reader is not None:
            self._reader.cancel()
        else:
            self._closing = asyncio.ensure_future(self._end())

    async def next(self) -> T | None:
        """The next item; None after the last one.

        Raises:
            Exception: the one that `stop` was given, or whatever the generator raises.
        """
        if self._error is not None:
            raise self._error
        reader = self._reader = asyncio.current_task()
        assert reader is not None
        cancelling = reader.cancelling()
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            # Only what `stop` cancelled becomes its error: whoever cancels the reader for good is obeyed.
            if self._error is not None and reader.uncancel() <= cancelling:
                raise self._error from None
            raise
        finally:
            self._reader = None

    async def close(self) -> None:
        """Close the generator. Nobody may wait for an item. Harmless when called twice."""
        await (self._closing or self._items.aclose())

    async def _end(self) -> None:
        await self._items.aclose()
