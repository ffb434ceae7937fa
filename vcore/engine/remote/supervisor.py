"""`Supervisor`: keeps an engine running: starts it, starts it again when it has died, and says how it is."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import Any, Protocol

from vcore.engine.records import EngineState, EngineStatus
from vcore.engine.remote.link import EngineLink, LinkFactory
from vcore.engine.remote.messages import FromEngine, HealthChanged, Ready, StepDone, ToEngine
from vcore.engine.remote.restarts import BackOff, RestartPolicy
from vcore.errors import EngineDeadError, EngineError

__all__ = ["EngineUser", "Supervisor"]

logger = logging.getLogger(__name__)

CLOSE_GRACE_S = 10.0
"""How long an engine that is closed may take to end by itself: a step that is being computed is let finish."""


class EngineUser(Protocol):
    """Whom the engine works for. Everything is called in the event loop."""

    async def on_ready(self, ready: Ready) -> None:
        """An engine was composed; nothing is sent to it before this returns. To raise is to fail its start."""
        ...

    def on_message(self, message: FromEngine) -> None:
        """The engine says something."""
        ...

    def on_dead(self, reason: str) -> None:
        """The engine is gone, with everything that was sent to it."""
        ...

    def on_status(self, status: EngineStatus) -> None:
        """The state has changed."""
        ...


class Supervisor:
    """One engine at a time, and the task that replaces it."""

    def __init__(self, make_link: LinkFactory, policy: RestartPolicy, user: EngineUser) -> None:
        """Start nothing yet."""
        self._make_link = make_link
        self._user = user
        self._back_off = BackOff(policy)
        self._link: EngineLink | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._closed = False
        self._ready_since = 0.0
        """When the engine that runs was ready."""
        self._working_since: float | None = None
        """When it had done its first step; None if it has done none."""
        self._lost: str | None = None
        """Why the engine has ended by itself, since it was started last."""
        self.status = EngineStatus(state="starting", reason="start was not called")

    async def start(self) -> None:
        """Start the engine for the first time, and wait until it is ready. What fails is raised and not tried again.

        Raises:
            VcoreError: see `EngineLink.start`.
            EngineError: it was called before.
        """
        if self._link is not None or self._closed:
            raise EngineError("an AsyncLLM is started once: make a new one")
        self._set("starting", reason="the model is being loaded")
        try:
            await self._start_link()
        except BaseException as error:
            if self._closed:
                raise EngineDeadError("the engine was closed while it was starting") from error
            self._set("dead", reason=str(error) or type(error).__name__)
            raise

    async def close(self) -> None:
        """End the engine, and any attempt to start it again. Harmless when called twice."""
        grace = 0.0
        if not self._closed:
            self._closed = True
            was_ready = self.status.state == "ready"
            self._set("closed", reason="it was closed", pid=None)
            if was_ready:
                grace = CLOSE_GRACE_S
                self._user.on_dead("it was closed")
        try:
            if self._recovery is not None:
                self._recovery.cancel()
                await asyncio.wait([self._recovery])
        finally:
            if self._link is not None:
                await self._link.stop(grace)

    def require_ready(self) -> None:
        """Raise unless requests can be sent.

        Raises:
            EngineDeadError: the message says how the engine is, and why.
        """
        status = self.status
        if status.state == "ready":
            return
        hint = {
            "starting": "Call `await start()` first, or use `async with`.",
            "restarting": "Try again later.",
            "dead": "Make a new one.",
            "closed": "Make a new one.",
        }[status.state]
        raise EngineDeadError(f"the engine is {status.state}: {status.reason}. {hint}")

    def send(self, message: ToEngine) -> None:
        """Send a message to the engine if it is ready; otherwise there is nobody whom it could concern.

        Raises:
            ValueError, TypeError, OverflowError: the message cannot be encoded.
        """
        if self.status.state == "ready" and self._link is not None:
            self._link.send(message)

    async def _start_link(self) -> None:
        self._lost = self._working_since = None
        link = self._link = self._make_link(self._on_message, self._on_lost)
        ready = await link.start()
        try:
            await self._user.on_ready(ready)
            if self._lost is not None or self._closed:
                raise EngineDeadError(self._lost or "it was closed")
        except BaseException:
            await link.stop(grace=0.0)
            raise
        restarts = self.status.restarts + (self.status.state == "restarting")
        reason = self.status.reason if restarts else None
        self._ready_since = time.monotonic()
        self._set("ready", reason=reason, restarts=restarts, pid=link.pid)

    def _on_lost(self, reason: str) -> None:
        """The engine has ended by itself."""
        self._lost = reason
        if self.status.state != "ready":
            return  # whoever is starting it will see
        logger.error("the engine is gone: %s", reason)
        now = time.monotonic()
        self._back_off.engine_ran(now - (self._working_since or now), now - self._ready_since)
        delay = self._back_off.next_delay()
        state: EngineState = "dead" if delay is None else "restarting"
        self._set(state, reason=self._with_verdict(reason), pid=None, faults=(), failed_steps=0)
        self._recovery = asyncio.get_running_loop().create_task(self._recover(delay), name="vcore-restart")
        self._user.on_dead(reason)

    async def _recover(self, delay: float | None) -> None:
        """Clear away what is left of the engine, and start another one after `delay` seconds, or not at all."""
        reason = self.status.reason
        assert self._link is not None
        await self._link.stop(grace=0.0)
        while delay is not None:
            logger.warning("starting the engine again in %.1f s", delay)
            await asyncio.sleep(delay)
            try:
                await self._start_link()
            except Exception as error:  # whatever it is, the next attempt may do better
                logger.error("the engine could not be started again: %s", error)
                self._back_off.start_failed()
                delay = self._back_off.next_delay()
                state: EngineState = "dead" if delay is None else "restarting"
                self._set(state, reason=self._with_verdict(f"{reason}; it could not be started again: {error}"))
            else:
                return

    def _with_verdict(self, reason: str) -> str:
        """The cause; with why that is the last one, if the engine has been given up. The cause may end with a log."""
        verdict = self._back_off.verdict
        return f"{verdict}; the last time {reason}" if verdict else reason

    def _on_message(self, message: FromEngine) -> None:
        if isinstance(message, HealthChanged):
            self._set(self.status.state, faults=message.faults, failed_steps=message.failed_steps)
        else:
            # Ends of requests that no step has seen are told without one.
            if self._working_since is None and isinstance(message, StepDone) and message.output.step_id:
                self._working_since = time.monotonic()
            self._user.on_message(message)

    def _set(self, state: EngineState, **changes: Any) -> None:
        self.status = dataclasses.replace(self.status, state=state, **changes)
        self._user.on_status(self.status)
