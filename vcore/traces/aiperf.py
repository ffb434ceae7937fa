"""The JSON lines that aiperf takes: prompts as text, single or as the turns of a session, each with its time.

A turn that states a ``delay`` waits for the answer to the one before it. A replay keeps the arrival times of the trace
whatever the server does, so such a turn is refused.
"""

from __future__ import annotations

from vcore.traces.row import Row
from vcore.traces.trace import TraceRequest

__all__ = ["parse_aiperf"]

_BYTES_PER_TOKEN = 4
_TEXTS = ("text_input", "text")
_DEFAULT_OUTPUT_LENGTH = 128


def parse_aiperf(row: Row) -> list[TraceRequest]:
    """The request of a row, or one for each of its ``turns``; ``timestamp`` is in milliseconds.

    A prompt's length that is not stated is estimated: a token for every 4 bytes of its text. An output's is 128.

    Raises:
        ConfigError: a field is missing or wrong, or a turn has a delay in place of a time.
    """
    turns = row.fields.get("turns")
    if turns is None:
        return [_request(row, row.text("session_id"))]
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise row.error("turns", "a list of objects")
    rows = [Row(f"{row.where}, turn {number}", turn) for number, turn in enumerate(turns)]
    return [_request(turn, row.text("session_id")) for turn in rows]


def _request(row: Row, session_id: str | None) -> TraceRequest:
    if not row.has("timestamp") and row.has("delay"):
        raise row.error("timestamp", "milliseconds: a delay after an answer has no fixed time of arrival")
    column = row.first(_TEXTS)
    text = None if column is None else row.text(column)
    if text is not None and not row.has("input_length"):
        input_length = -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)
    else:
        input_length = row.integer("input_length", least=1)
    return TraceRequest(
        arrival_s=row.number("timestamp") / 1e3,
        input_length=input_length,
        output_length=max(1, row.integer("output_length", least=0))
        if row.has("output_length")
        else _DEFAULT_OUTPUT_LENGTH,
        block_ids=row.integers("hash_ids"),
        text=text,
        session_id=session_id,
        priority=row.integer("priority", least=-(2**31)) if row.has("priority") else 0,
    )
