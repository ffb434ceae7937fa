"""`Target`: whatever takes requests and gives tokens: a server over HTTP, or the engine itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest

__all__ = ["Target", "TargetError", "TargetInfo"]


class TargetError(Exception):
    """One request failed. `kind` groups failures in a report."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInfo:
    """What is known of a target once it has been entered."""

    name: str
    """For the report."""
    model: str
    vocab_size: int | None = None
    """Token ids are below it; None if that is not known."""
    max_model_len: int | None = None
    """Most tokens of prompt and output together; None if that is not known."""


class Target(Protocol):
    """Serves requests between ``async with`` and its end.

    `run` writes into the record rather than yielding: a piece of a stream then costs no switch of tasks, and its time
    is when it came in, not when somebody looked.
    """

    async def __aenter__(self) -> Self:
        """Start it, or make sure that it is there."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing behind."""
        ...

    def info(self) -> TargetInfo:
        """What it serves."""
        ...

    async def run(self, request: LoadRequest, record: RequestRecord) -> None:
        """Serve one request to its end; cancelling it drops the request.

        Args:
            request: what to ask for.
            record: gets every arrival of tokens (`RequestRecord.add`), counts, the finish reason and the queue time.

        Raises:
            TargetError: it failed; the record keeps what had come until then.
        """
        ...
