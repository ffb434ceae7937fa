"""`summarise`: the figures of one load from its records. Arithmetic alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from vcore.bench.percentiles import percentiles
from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.runner import LoadRun
from vcore.bench.serve.slo import Slo

__all__ = ["Summary", "summarise"]

Summary = dict[str, Any]
"""As `summarise` describes it; plain data for JSON."""


def summarise(run: LoadRun, slo: Slo | None = None) -> Summary:
    """Count, and take percentiles over the requests that came to their ends; failures are counted beside them.

    Throughputs are over the whole run, from the first arrival to the last end, so that what a server could not keep
    up with shows. Tokens of failed requests count in none of them.

    Returns:
        ``num_requests``, ``completed``, ``errors`` (kind: how many), ``error_messages`` (kind: the first),
        ``elapsed_s``, ``requests_per_s``, ``output_tokens_per_s``, ``input_tokens_per_s``, ``input_tokens``,
        ``output_tokens``, ``cached_tokens``, ``short_outputs`` (requests with fewer tokens than asked for),
        ``unstated_usage`` (requests whose server did not say how many), ``tokens_per_piece``, ``peak_in_flight``;
        ``ttft_s``, ``itl_s`` (between arrivals of tokens, of all requests together), ``tpot_s`` (the mean of each
        request), ``e2e_s``, ``queue_s``, ``held_s`` and ``lag_s``, each with percentiles or None; and ``goodput``:
        None, or ``requests_per_s`` and the ``share`` of all requests, failed ones too, that kept the SLO.
    """
    good = [record for record in run.records if record.ok]
    output_tokens = sum(record.num_output_tokens for record in good)
    input_tokens = sum(record.num_prompt_tokens or 0 for record in good)
    num_pieces = sum(len(record.times) for record in good)
    return {
        "num_requests": len(run.records),
        "completed": len(good),
        **_failures(run.records),
        "elapsed_s": run.elapsed_s,
        "requests_per_s": len(good) / run.elapsed_s,
        "output_tokens_per_s": output_tokens / run.elapsed_s,
        "input_tokens_per_s": input_tokens / run.elapsed_s,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cached_tokens": sum(record.num_cached_tokens for record in good),
        "short_outputs": sum(record.num_output_tokens < record.num_wanted_tokens for record in good),
        "unstated_usage": sum(not record.usage_stated for record in good),
        "tokens_per_piece": sum(record.num_counted for record in good) / num_pieces if num_pieces else None,
        "peak_in_flight": run.peak_in_flight,
        **_latencies(run.records, good),
        "goodput": None if slo is None else _goodput(run, slo),
    }


def _failures(records: Iterable[RequestRecord]) -> Summary:
    failed = [record for record in records if not record.ok]
    messages: dict[str, str | None] = {}
    for record in failed:
        messages.setdefault(str(record.error), record.message)
    return {"errors": dict(Counter(str(record.error) for record in failed)), "error_messages": messages}


def _latencies(records: Sequence[RequestRecord], good: Sequence[RequestRecord]) -> Summary:
    return {
        "ttft_s": percentiles([record.ttft for record in good]),
        "itl_s": percentiles(list(chain.from_iterable(record.gaps for record in good))),
        "tpot_s": percentiles([tpot for record in good if (tpot := record.tpot) is not None]),
        "e2e_s": percentiles([record.e2e for record in good]),
        "queue_s": percentiles([record.queue_s for record in good if record.queue_s is not None]),
        "held_s": percentiles([record.held for record in good]),
        "lag_s": percentiles([record.lag for record in records]),
    }


def _goodput(run: LoadRun, slo: Slo) -> Summary:
    met = sum(slo.met_by(record) for record in run.records)
    return {"requests_per_s": met / run.elapsed_s, "share": met / len(run.records)}
