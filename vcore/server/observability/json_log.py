"""`JsonLog`: lines of JSON on a stream, written by a thread of its own, so that a full pipe stops no request."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

__all__ = ["JsonLog"]

_QUEUE = 10_000
"""Lines that may wait to be written; beyond, they are dropped and counted."""
_PATIENCE_S = 2.0
"""How long the end of a server waits for a stream that is full."""


class JsonLog:
    """Each line is one object, with ``time`` (UTC) and ``event`` first."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUE)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="vcore-request-log", daemon=True)
        self._thread.start()

    def write(self, event: str, fields: Mapping[str, object]) -> None:
        """Queue a line; returns at once."""
        line: dict[str, Any] = {"time": time.time(), "event": event, **fields}
        if self._dropped:
            line["dropped_lines"] = self._dropped
        try:
            self._lines.put_nowait(line)
            self._dropped = 0
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is queued, and stop; harmless twice."""
        if self._thread.is_alive():
            with suppress(queue.Full):  # nobody reads the stream: what is queued is lost with the process
                self._lines.put(None, timeout=_PATIENCE_S)
            self._thread.join(timeout=_PATIENCE_S)

    def _write(self) -> None:
        num_failed = 0
        while (line := self._lines.get()) is not None:
            if num_failed:
                line["dropped_lines"] = num_failed + line.get("dropped_lines", 0)
            try:
                self._stream.write(_text(line))
                self._stream.flush()
            except (BrokenPipeError, ValueError):  # the reader of the stream is gone, or it was closed
                return
            except OSError:  # such as a disk that is full, and may have room again
                num_failed = 1 + line.get("dropped_lines", 0)
            else:
                num_failed = 0


def _text(line: Mapping[str, Any]) -> str:
    seconds = line["time"]
    utc = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"
    return json.dumps({**line, "time": utc}, default=str) + "\n"
