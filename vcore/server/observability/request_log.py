"""`RequestLog`: what is logged of requests. No text of a user's is in it, unless prompts are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vcore.errors import VcoreError

if TYPE_CHECKING:
    from vcore.engine.records import EngineStatus, RequestRecord, StepRecord
    from vcore.server.observability.http_watch import Exchange
    from vcore.server.observability.json_log import JsonLog
    from vcore.server.observability.request_notes import RequestNotes

__all__ = ["RequestLog"]

_NUMBERS = ("n", "temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "priority", "logprobs")
"""Parameters that cannot hold text of a user's, as stop strings and schemas do."""
_NUMBERS_OF_EMBEDDINGS = ("dimensions", "normalize", "priority")
_FREQUENT = ("/health", "/metrics", "/ui/")
"""Paths that machines ask every second: logged only when they fail."""


class RequestLog:
    """Three events: ``request`` (the engine is done with it), ``http`` (an answer is over), ``engine`` (its state)."""

    def __init__(self, log: JsonLog, notes: RequestNotes, decode: Callable[[list[int]], str]) -> None:
        """Log to `log`.

        Args:
            log: takes the lines.
            notes: what HTTP knows of a request.
            decode: from token ids to text, for prompts that came as chats or ids; called only if prompts are logged.
        """
        self._log = log
        self._notes = notes
        self._decode = decode

    def on_step(self, record: StepRecord) -> None:
        """Nothing: steps stand in the timeline."""

    def on_finished(self, record: RequestRecord) -> None:
        """One line a request."""
        metrics, note = record.metrics, self._notes.get(record.request_id)
        end = metrics.finished_time
        fields: dict[str, object] = {
            "request_id": record.request_id,
            "http_request_id": None if note is None else note.http_request_id,
            "path": None if note is None else note.path,
            "finish_reasons": list(record.finish_reasons),
            "num_prompt_tokens": record.num_prompt_tokens,
            "num_cached_tokens": record.num_cached_tokens,
            "num_output_tokens": record.num_output_tokens,
            "num_preemptions": metrics.num_preemptions,
            "queue_s": _rounded(metrics.queue_time),
            "ttft_s": _rounded(metrics.ttft),
            "mean_itl_s": _rounded(metrics.mean_itl),
            "e2e_s": _rounded(None if end is None else end - metrics.arrival_time),
            "params": _params(record),
        }
        if note is not None and note.traceparent is not None:
            fields["traceparent"] = note.traceparent
        if note is not None and note.prompt is not None:
            fields["prompt"] = self._text(note.prompt)
        self._log.write("request", fields)

    def on_engine(self, status: EngineStatus) -> None:
        """One line a change."""
        self._log.write("engine", {"state": str(status.state), "reason": status.reason, "restarts": status.restarts})

    def on_exchange(self, exchange: Exchange) -> None:
        """One line an answer, but for what is asked every second."""
        if exchange.status < 400 and exchange.path.startswith(_FREQUENT):
            return
        self._log.write(
            "http",
            {
                "method": exchange.method,
                "path": exchange.path,
                "status": exchange.status,
                "seconds": _rounded(exchange.seconds),
                "request_id": exchange.request_id,
            },
        )

    def _text(self, prompt: object) -> object:
        """A prompt as text, where it has one."""
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, Mapping):
            if isinstance(text := prompt.get("prompt"), str):
                return text
            prompt = prompt.get("prompt_token_ids")
        if not isinstance(prompt, list):
            return None
        try:
            return self._decode(prompt)
        except VcoreError:  # there is no tokenizer
            return prompt


def _params(record: RequestRecord) -> dict[str, object]:
    if record.pooling is not None:
        return {name: getattr(record.pooling, name) for name in _NUMBERS_OF_EMBEDDINGS}
    return {name: getattr(record.params, name) for name in _NUMBERS}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
