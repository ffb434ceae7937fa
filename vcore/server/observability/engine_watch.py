"""`EngineWatch`: the engine as it is now, for scrapes and for the page, however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcore.errors import EngineError
from vcore.server.observability.composition import Composition

if TYPE_CHECKING:
    from vcore.config import ServerSettings
    from vcore.engine.async_llm import AsyncLLM
    from vcore.engine.records import EngineStatus
    from vcore.scheduler import SchedulerStats

__all__ = ["EngineMoment", "EngineWatch"]

_FRESH_S = 0.2
"""For so long, those who ask share one answer."""
_PATIENCE_S = 0.25
"""The engine answers between steps; after so long, the numbers of its last step have to do."""


@dataclass(frozen=True, slots=True)
class EngineMoment:
    """What is so at one moment."""

    composition: Composition | None
    """None before the engine was composed."""
    status: EngineStatus
    stats: SchedulerStats | None
    """None before the first step, and while no engine runs."""


class EngineWatch:
    """Asks the engine at most a few times a second; an idle engine has no steps that would tell."""

    def __init__(
        self, engine: AsyncLLM, settings: ServerSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._composition: Composition | None = None
        self._moment: EngineMoment | None = None
        self._taken = 0.0
        self._asking = asyncio.Lock()

    @property
    def composition(self) -> Composition | None:
        """What the engine was composed from; None before it was."""
        if self._composition is None and self._engine.health().state != "starting":
            try:
                self._composition = Composition.of(self._engine, self._settings)
            except EngineError:  # it died before it could say what it is
                return None
        return self._composition

    async def moment(self) -> EngineMoment:
        """The engine as it is now, or was a fraction of a second ago. Those who ask meanwhile wait for one answer."""
        async with self._asking:
            now = self._clock()
            moment = self._moment
            if moment is None or now - self._taken > _FRESH_S or moment.status.state != self._engine.health().state:
                stats = await self._stats()
                moment = self._moment = EngineMoment(self.composition, self._engine.health(), stats)
                self._taken = self._clock()
            return moment

    async def _stats(self) -> SchedulerStats | None:
        engine = self._engine
        if engine.health().state != "ready":
            return None
        try:
            return await asyncio.wait_for(engine.stats(), _PATIENCE_S)
        except TimeoutError:
            return engine.last_stats()
        except EngineError:  # it died while it was asked
            return None
