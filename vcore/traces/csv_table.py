"""Plain CSV: one request a row, in columns with the names that `TraceRequest` has, or the usual others."""

from __future__ import annotations

from vcore.sampling_params import MAX_SECONDS
from vcore.traces.row import Row
from vcore.traces.trace import TraceRequest

__all__ = ["parse_csv"]

_PER_SECOND = {"arrival_s": 1.0, "timestamp_ms": 1e3, "timestamp": 1e3}
"""Columns with the arrival, and how many of their unit are a second; divided by, as in the other formats, so that a
trace has the same times to the last bit whatever its format."""
_TENANTS = ("tenant", "client_id")


def parse_csv(row: Row) -> list[TraceRequest]:
    """The one request of a row.

    Raises:
        ConfigError: a field is missing or wrong.
    """
    column = row.first(_PER_SECOND)
    if column is None:
        raise row.error("arrival_s", "the arrival in seconds, or timestamp_ms in milliseconds")
    tenant = row.first(_TENANTS)
    return [
        TraceRequest(
            arrival_s=row.number(column) / _PER_SECOND[column],
            input_length=row.integer("input_length", least=1),
            output_length=max(1, row.integer("output_length", least=0)),
            block_ids=row.integers("hash_ids"),
            session_id=row.text("session_id"),
            tenant=None if tenant is None else row.tenant(tenant),
            priority=row.integer("priority", least=-(2**31)) if row.has("priority") else 0,
            cache_ttl=_cache_ttl(row) if row.has("cache_ttl") else None,
        )
    ]


def _cache_ttl(row: Row) -> float:
    seconds = row.number("cache_ttl")
    if not 0 < seconds <= MAX_SECONDS:
        raise row.error("cache_ttl", f"seconds above 0, up to {MAX_SECONDS:,.0f}")
    return seconds
