"""`merge`: several generators as one, all of them running at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

__all__ = ["merge"]

T = TypeVar("T")

_ROOM = 2
"""Items that wait for a slow reader; beyond that the generators wait."""


async def merge(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """What comes of `sources`, each item with the index of its source; closing it closes them.

    Raises:
        Exception: the first that one of them raises, after what came before it; the others are closed.
    """
    if len(sources) == 1:  # nearly always: its reader can wait for it without a task between
        async with aclosing(sources[0]) as items:
            async for item in items:
                yield 0, item
        return
    arrived: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue(_ROOM)
    pumps = [asyncio.create_task(_pump(index, source, arrived)) for index, source in enumerate(sources)]
    try:
        num_open = len(pumps)
        while num_open:
            one = await arrived.get()
            if isinstance(one, Exception):
                raise one
            if one is None:
                num_open -= 1
            else:
                yield one
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    index: int, source: AsyncGenerator[T, None], arrived: asyncio.Queue[tuple[int, T] | Exception | None]
) -> None:
    """Pass on the items of a source, and then its end: None, or what it raised."""
    end: Exception | None = None
    try:
        async with aclosing(source) as items:
            async for item in items:
                await arrived.put((index, item))
    except Exception as error:
        end = error
    await arrived.put(end)
