"""`BlockPicture`: the states of all KV blocks in two bits each, asked of the engine at most once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from vcore.errors import EngineError

if TYPE_CHECKING:
    from vcore.engine.async_llm import AsyncLLM

__all__ = ["BlockPicture", "pack"]

_FRESH_S = 1.0
"""For so long, all who look share one picture: it is linear in the number of blocks, and the engine makes it."""

_PATIENCE_S = 2.0
"""The engine answers between steps; after so long, the last picture has to do."""


def pack(states: bytes) -> bytes:
    """Four states a byte, the first in the lowest two bits; what is missing at the end is 0."""
    padded = np.zeros(-(-len(states) // 4) * 4, dtype=np.uint8)
    padded[: len(states)] = np.frombuffer(states, dtype=np.uint8)
    shifted = padded.reshape(-1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)  # [num_blocks / 4, 4]
    return bytes(shifted.sum(axis=1, dtype=np.uint8))


class BlockPicture:
    """The picture, however many look at it."""

    def __init__(self, engine: AsyncLLM, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._packed = b""
        self._num_blocks = 0
        self._taken: float | None = None
        self._asking = asyncio.Lock()

    async def take(self) -> tuple[int, bytes]:
        """The number of blocks, the null block among them, and their packed states (see `vcore.kv_cache.BlockMap`).

        Those of a while ago, or none, if the engine does not answer.

        Raises:
            EngineError: no engine runs.
        """
        state = self._engine.health().state
        if state != "ready":
            raise EngineError(f"the engine is {state}")
        async with self._asking:  # those who ask meanwhile wait for one answer
            if self._taken is None or self._clock() - self._taken > _FRESH_S:
                with suppress(TimeoutError):
                    found = await asyncio.wait_for(self._engine.block_map(), _PATIENCE_S)
                    self._num_blocks, self._packed = found.num_blocks, pack(found.states)
                self._taken = self._clock()
            return self._num_blocks, self._packed
