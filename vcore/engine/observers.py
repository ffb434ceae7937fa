"""`ObserverDispatcher`: carries the engine's events to observers on a thread of its own, behind a bounded queue.

The step loop only puts: when the queue is full the event is dropped and counted, and the next one that
gets through says how many are missing. An observer that raises is named once and hears no more.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping

from vcore.engine.step_output import StepOutput
from vcore.interfaces.observer import Observer, ObserverEvent
from vcore.scheduler import SchedulerStats

__all__ = ["ObserverDispatcher"]

logger = logging.getLogger(__name__)


class ObserverDispatcher:
    """One thread that hands events to observers."""

    def __init__(self, observers: Mapping[str, tuple[Observer, frozenset[str]]], capacity: int = 1024) -> None:
        """Start the thread.

        Args:
            observers: by address, each with the events that it wants.
            capacity: events that may wait.
        """
        self._observers = dict(observers)
        self._wanted = frozenset().union(*(events for _, events in observers.values()))
        self._queue: queue.Queue[ObserverEvent | None] = queue.Queue(capacity)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="vcore-observers", daemon=True)
        self._thread.start()

    def on_step(self, output: StepOutput, stats: SchedulerStats) -> None:
        """Tell of a step and of the requests that ended in it. Never waits."""
        now = time.monotonic()
        if "step" in self._wanted and (output.token_ids or output.finished):
            fields = {
                "num_tokens": len(output.token_ids),
                "num_started": len(output.started),
                "num_finished": len(output.finished),
                "stats": stats,
            }
            self._put(ObserverEvent("step", now, fields))
        if "finished" in self._wanted:
            for request_id, finished in output.finished.items():
                fields = {
                    "request_id": request_id,
                    "reason": finished.reason.value,
                    "num_preemptions": finished.num_preemptions,
                }
                self._put(ObserverEvent("finished", now, fields))

    def _put(self, event: ObserverEvent) -> None:
        if self._dropped:
            event = ObserverEvent(event.name, event.time, {**event.fields, "dropped": self._dropped})
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._dropped += 1
        else:
            self._dropped = 0

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            for address, (observer, events) in list(self._observers.items()):
                if event.name not in events:
                    continue
                try:
                    observer.on_event(event)
                except (Exception, SystemExit):  # the latter would silently end this thread
                    logger.exception("observer %s raised on %r and will hear no more events", address, event.name)
                    del self._observers[address]

    def close(self, timeout: float = 5.0) -> None:
        """Deliver what waits, for at most `timeout` seconds, then close the observers."""
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            logger.warning("observers did not keep up; %d events were not delivered", self._queue.qsize())
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.warning("observers did not finish within %.0f s; they are left behind", timeout)
            return
        for address, (observer, _) in self._observers.items():
            try:
                observer.close()
            except (Exception, SystemExit):
                logger.exception("observer %s raised on close", address)
