"""Generators that another task may end, and several read as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from vcore.server.merge import merge
from vcore.server.stoppable import Stoppable


class Source:
    """Yields numbers as they are put, and knows whether it was closed."""

    def __init__(self) -> None:
        self.numbers: asyncio.Queue[int | None] = asyncio.Queue()
        self.closed = False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            while (number := await self.numbers.get()) is not None:
                yield number
        finally:
            self.closed = True


async def settle() -> None:
    """Let every task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_items_come_through_and_none_at_the_end() -> None:
    async def run() -> None:
        source = Source()
        for number in (1, 2, None):
            source.numbers.put_nowait(number)
        stoppable = Stoppable(source.items())
        assert [await stoppable.next() for _ in range(3)] == [1, 2, None]
        await stoppable.close()
        assert source.closed

    asyncio.run(run())


def test_stop_ends_who_waits_with_its_error_and_leaves_the_task_alive() -> None:
    async def run() -> None:
        source = Source()
        stoppable = Stoppable(source.items())

        async def read() -> str:
            try:
                await stoppable.next()
            except ValueError as error:
                await asyncio.sleep(0)  # would raise if the task were still being cancelled
                return str(error)
            return "no error"

        reader = asyncio.create_task(read())
        await settle()
        stoppable.stop(ValueError("enough"))
        stoppable.stop(ValueError("the second is ignored"))
        assert await reader == "enough"
        assert reader.cancelling() == 0
        assert source.closed

    asyncio.run(run())


def test_stop_closes_the_generator_while_nobody_reads() -> None:
    async def run() -> None:
        source = Source()
        source.numbers.put_nowait(1)
        stoppable = Stoppable(source.items())
        assert await stoppable.next() == 1
        stoppable.stop(ValueError("enough"))
        await settle()
        assert source.closed, "the client that does not read keeps its work alive"
        with pytest.raises(ValueError, match="enough"):
            await stoppable.next()
        await stoppable.close()

    asyncio.run(run())


def test_a_reader_that_is_cancelled_for_good_is_cancelled_though_it_was_stopped_too() -> None:
    async def run() -> None:
        source = Source()
        stoppable = Stoppable(source.items())
        reader = asyncio.create_task(stoppable.next())
        await settle()
        stoppable.stop(ValueError("enough"))
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert source.closed

    asyncio.run(run())


@pytest.mark.parametrize("number", [1, 3])
def test_merged_sources_are_told_apart_and_closed_together(number: int) -> None:
    async def run() -> None:
        sources = [Source() for _ in range(number)]
        merged = merge([source.items() for source in sources])
        for index, source in enumerate(sources):
            source.numbers.put_nowait(index * 10)
        found = [await anext(merged) for _ in range(number)]
        assert sorted(found) == [(index, index * 10) for index in range(number)]
        await merged.aclose()
        assert all(source.closed for source in sources)

    asyncio.run(run())


@pytest.mark.parametrize("number", [1, 3])
def test_an_error_of_one_source_comes_out_and_closes_the_others(number: int) -> None:
    async def failing() -> AsyncGenerator[int, None]:
        yield 7
        raise ValueError("broken")

    async def run() -> None:
        others = [Source() for _ in range(number - 1)]
        merged = merge([failing(), *(source.items() for source in others)])
        assert await anext(merged) == (0, 7)
        with pytest.raises(ValueError, match="broken"):
            await anext(merged)
        assert all(source.closed for source in others)

    asyncio.run(run())


def test_a_source_that_is_slow_keeps_no_other_waiting() -> None:
    async def run() -> None:
        slow, quick = Source(), Source()
        merged = merge([slow.items(), quick.items()])
        quick.numbers.put_nowait(5)
        assert await anext(merged) == (1, 5)
        await merged.aclose()

    asyncio.run(run())
