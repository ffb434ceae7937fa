"""`Listeners`: tells several `EngineListener`s; one that raises harms nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vcore.engine.records import EngineListener, EngineStatus, RequestRecord, StepRecord

__all__ = ["Listeners"]

logger = logging.getLogger(__name__)


class Listeners:
    """Those who are told, in the order in which they were added."""

    def __init__(self) -> None:
        """Begin with none."""
        self._listeners: list[EngineListener] = []

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, listener: EngineListener) -> None:
        """Tell `listener` from now on."""
        self._listeners.append(listener)

    def on_step(self, record: StepRecord) -> None:
        """Tell all of a step."""
        self._tell(lambda listener: listener.on_step(record))

    def on_finished(self, record: RequestRecord) -> None:
        """Tell all of a request that has ended."""
        self._tell(lambda listener: listener.on_finished(record))

    def on_engine(self, status: EngineStatus) -> None:
        """Tell all of the engine's state."""
        self._tell(lambda listener: listener.on_engine(status))

    def _tell(self, tell: Callable[[EngineListener], None]) -> None:
        for listener in list(self._listeners):
            try:
                tell(listener)
            except Exception:
                logger.exception("the listener %r raised, and will hear no more", listener)
                self._listeners.remove(listener)
