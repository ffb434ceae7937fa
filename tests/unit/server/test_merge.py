"""Several generators as one: their items, their errors, their ends, and what an item costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from vcore.server.merge import merge


async def letters(text: str, closed: list[str]) -> AsyncGenerator[str, None]:
    """Each letter; an exclamation mark raises."""
    try:
        for letter in text:
            await asyncio.sleep(0)
            if letter == "!":
                raise ValueError(text)
            yield letter
    finally:
        closed.append(text)


def test_every_item_comes_with_its_source_and_in_its_order() -> None:
    async def main() -> None:
        closed: list[str] = []
        texts = ["abc", "", "defgh", "i"]
        found = ["", "", "", ""]
        async for index, letter in merge([letters(text, closed) for text in texts]):
            found[index] += letter
        assert found == texts
        assert sorted(closed) == sorted(texts)

    asyncio.run(main())


def test_an_error_comes_after_what_came_before_it_and_closes_the_others() -> None:
    async def main() -> None:
        closed: list[str] = []
        found = []

        async def read() -> None:
            async for item in merge([letters("ab!", closed), letters("x" * 100, closed)]):
                found.append(item)

        with pytest.raises(ValueError, match="ab!"):
            await read()
        assert [item for item in found if item[0] == 0] == [(0, "a"), (0, "b")]
        assert len(found) < 10
        assert sorted(closed) == ["ab!", "x" * 100]

    asyncio.run(main())


def test_who_waits_for_a_slow_reader_is_closed_with_it() -> None:
    async def main() -> None:
        closed: list[str] = []
        merged = merge([letters("x" * 100, closed) for _ in range(5)])
        await anext(merged)
        for _ in range(20):
            await asyncio.sleep(0)  # the others are stuck by now
        await merged.aclose()
        assert len(closed) == 5

    asyncio.run(main())


def test_an_item_costs_no_more_among_many_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step gives an item to every prompt of a list; each of them must not wake all others."""

    async def num_callbacks(num_sources: int) -> float:
        """Of the event loop, an item, when all sources have one at the same moment."""
        step = asyncio.Event()

        async def source() -> AsyncGenerator[None, None]:
            await step.wait()
            yield None

        loop, count = asyncio.get_running_loop(), 0
        call_soon = loop.call_soon

        def counted(callback: Callable[..., Any], *arguments: Any, **options: Any) -> asyncio.Handle:
            nonlocal count
            count += 1
            return call_soon(callback, *arguments, **options)

        monkeypatch.setattr(loop, "call_soon", counted)
        loop.call_soon(step.set)
        items = [item async for item in merge([source() for _ in range(num_sources)])]
        assert len(items) == num_sources
        return count / num_sources

    few, many = asyncio.run(num_callbacks(16)), asyncio.run(num_callbacks(256))
    assert many < few * 1.5
