"""The formats of trace files: which columns tell them apart, and what a row says."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from vcore.traces.aiperf import parse_aiperf
from vcore.traces.azure import parse_azure
from vcore.traces.csv_table import parse_csv
from vcore.traces.mooncake import parse_mooncake
from vcore.traces.row import Row
from vcore.traces.trace import TraceRequest

__all__ = ["FORMATS", "TraceFormat"]


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """How the rows of one format are read."""

    name: str
    summary: str
    is_json: bool
    """JSON lines; otherwise CSV with a header."""
    parse: Callable[[Row], list[TraceRequest]]
    """The requests of a row; their arrival times count from any moment, the same for all rows."""
    recognises: Callable[[Collection[str]], bool]
    """Whether a file whose first row has these fields is of this format. The first format that says so is taken."""


FORMATS = (
    TraceFormat(
        name="aiperf",
        summary="JSON lines: text or text_input with timestamp (ms), or session_id with turns of these",
        is_json=True,
        parse=parse_aiperf,
        recognises=lambda names: not {"text", "text_input", "turns", "delay"}.isdisjoint(names),
    ),
    TraceFormat(
        name="mooncake",
        summary="JSON lines: timestamp (ms), input_length, output_length, hash_ids",
        is_json=True,
        parse=parse_mooncake,
        recognises=lambda names: {"timestamp", "input_length"} <= set(names),
    ),
    TraceFormat(
        name="azure",
        summary="CSV: TIMESTAMP (date and time), ContextTokens, GeneratedTokens",
        is_json=False,
        parse=parse_azure,
        recognises=lambda names: {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= set(names),
    ),
    TraceFormat(
        name="csv",
        summary="CSV: arrival_s or timestamp_ms, input_length, output_length; session_id, tenant, priority, cache_ttl, "
        "hash_ids",
        is_json=False,
        parse=parse_csv,
        recognises=lambda names: {"input_length", "output_length"} <= set(names),
    ),
)
"""In the order in which they are tried."""
