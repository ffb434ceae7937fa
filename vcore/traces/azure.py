"""The format of Azure's public LLM inference traces (Splitwise, ISCA'24): CSV with a date, and tokens in and out."""

from __future__ import annotations

from datetime import UTC, datetime

from vcore.traces.row import Row
from vcore.traces.trace import TraceRequest

__all__ = ["parse_azure"]


def parse_azure(row: Row) -> list[TraceRequest]:
    """The one request of a row. A date without a zone is taken as UTC.

    Raises:
        ConfigError: a field is missing or wrong.
    """
    try:
        moment = datetime.fromisoformat(row.text("TIMESTAMP") or "")
    except ValueError:
        raise row.error("TIMESTAMP", "a date and time such as 2023-11-16 18:17:03.98") from None
    return [
        TraceRequest(
            arrival_s=(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(),
            input_length=row.integer("ContextTokens", least=1),
            output_length=max(1, row.integer("GeneratedTokens", least=0)),
        )
    ]
