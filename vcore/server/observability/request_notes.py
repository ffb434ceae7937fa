"""`RequestNotes`: what HTTP knows of a request and the engine does not, until the engine says that it has ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

    from vcore.engine.records import EngineStatus, RequestRecord, StepRecord

__all__ = ["Exchanging", "RequestNote", "RequestNotes", "note_request", "route_path"]

MAX_NOTES = 65_536
"""More than may ever be open."""
_LINGER_S = 30.0
"""The engine says what became of a request at most so long after its answer is over; then its note goes anyway."""
UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class RequestNote:
    """What is known of the HTTP request behind an engine request."""

    path: str
    """The route."""
    http_request_id: str | None = None
    """The answer's ``X-Request-Id``."""
    traceparent: str | None = None
    """The W3C trace context that the client sent."""
    tracestate: str | None = None
    prompt: object = None
    """What goes into the engine, if prompts are logged."""


class RequestNotes:
    """Notes by request id."""

    def __init__(self, *, with_prompts: bool = False) -> None:
        """No notes.

        Args:
            with_prompts: whether prompts are kept with them.
        """
        self.with_prompts = with_prompts
        self._notes: OrderedDict[str, RequestNote] = OrderedDict()

    def __len__(self) -> int:
        return len(self._notes)

    def add(self, request_id: str, note: RequestNote) -> None:
        """Keep `note` until the request ends."""
        self._notes[request_id] = note
        if len(self._notes) > MAX_NOTES:
            self._notes.popitem(last=False)

    def get(self, request_id: str) -> RequestNote | None:
        """The note on a request."""
        return self._notes.get(request_id)

    def drop(self, request_id: str) -> None:
        """Nobody will ask for the note any more."""
        self._notes.pop(request_id, None)

    def on_step(self, record: StepRecord) -> None:
        """Nothing."""

    def on_finished(self, record: RequestRecord) -> None:
        """The request has ended, and all who wanted the note, listeners that were added before, have read it."""
        self.drop(record.request_id)

    def on_engine(self, status: EngineStatus) -> None:
        """Nothing."""


@dataclass(slots=True)
class Exchanging:
    """An HTTP exchange under way, in whose context the engine is asked."""

    scope: Scope
    notes: RequestNotes
    request_ids: list[str] = field(default_factory=list)

    def note(self, request_id: str, prompt: object) -> None:
        """Note that the exchange asks the engine for this."""
        headers = dict(self.scope["headers"])
        parent, state = headers.get(b"traceparent"), headers.get(b"tracestate")
        note = RequestNote(
            path=route_path(self.scope),
            http_request_id=self.scope.get("state", {}).get("request_id"),
            traceparent=None if parent is None else parent.decode("latin-1"),
            tracestate=None if state is None else state.decode("latin-1"),
            prompt=prompt if self.notes.with_prompts else None,
        )
        self.notes.add(request_id, note)
        self.request_ids.append(request_id)

    def over(self) -> None:
        """The exchange is over; requests that the engine refused, and never tells of, are forgotten in a while."""
        if self.request_ids:
            asyncio.get_running_loop().call_later(_LINGER_S, self._forget)

    def _forget(self) -> None:
        for request_id in self.request_ids:
            self.notes.drop(request_id)


exchanging: ContextVar[Exchanging | None] = ContextVar("vcore_exchanging", default=None)
"""The exchange that the current task serves; None if nobody wants notes."""


def note_request(request_id: str, prompt: object) -> None:
    """Say that the exchange which this task serves is about to ask the engine for `request_id`."""
    current = exchanging.get()
    if current is not None:
        current.note(request_id, prompt)


def route_path(scope: Scope) -> str:
    """The route that serves, as it was declared: never what a client wrote, which would be unbounded."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else UNMATCHED
