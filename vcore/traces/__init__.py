"""Recorded traffic: files of requests with arrival times and lengths, read into one form. Knows no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.traces.reader import *  # noqa: F403
    from vcore.traces.scaling import *  # noqa: F403
    from vcore.traces.trace import *  # noqa: F403

_EXPORTS = {
    "reader": ("TRACE_FORMATS", "read_trace"),
    "scaling": ("cut_lengths", "scale_lengths", "scale_times"),
    "trace": ("Trace", "TraceRequest"),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
