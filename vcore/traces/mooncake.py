"""Mooncake's format: JSON lines with lengths and the ids of prompt blocks.

Described with the traces of "Mooncake: Trading More Storage for Less Computation" (FAST'25). A row may also name the
session, the tenant and the priority.
"""

from __future__ import annotations

from vcore.traces.row import Row
from vcore.traces.trace import TraceRequest

__all__ = ["parse_mooncake"]


def parse_mooncake(row: Row) -> list[TraceRequest]:
    """The one request of a row; ``timestamp`` is in milliseconds.

    Raises:
        ConfigError: a field is missing or wrong.
    """
    return [
        TraceRequest(
            arrival_s=row.number("timestamp") / 1e3,
            input_length=row.integer("input_length", least=1),
            output_length=max(1, row.integer("output_length", least=0)),
            block_ids=row.integers("hash_ids"),
            session_id=row.text("session_id"),
            tenant=row.tenant("tenant"),
            priority=row.integer("priority", least=-(2**31)) if row.has("priority") else 0,
        )
    ]
