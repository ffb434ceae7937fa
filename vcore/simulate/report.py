"""What a simulation says: `describe` for programs, `print_simulations` for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcore.bench.percentiles import percentiles
from vcore.bench.serve.slo import Slo
from vcore.simulate.fairness import fairness
from vcore.simulate.simulation import Simulation
from vcore.simulate.weighted import weighted_percentiles

__all__ = ["describe", "print_simulations"]

Answer = dict[str, Any]


def describe(done: Simulation) -> Answer:
    """Plain data for JSON.

    Returns:
        ``scheduling`` and ``eviction`` (the policies), ``num_blocks`` (of each replica, for requests), ``block_size``,
        ``replicas``, ``routing``, ``num_requests``, ``completed``, ``rejected``, ``rate`` (arrivals a second),
        ``elapsed_s`` (to the last end), ``requests_per_s``, ``output_tokens_per_s``, ``hit_rate`` (the share of prompt
        blocks that were cached), ``ttft_s``, ``itl_s``, ``tpot_s``, ``e2e_s`` and ``queue_s`` (each with percentiles
        or None), ``goodput`` (None, or ``requests_per_s`` and ``share``), ``preemptions``, ``fairness``, ``steps``,
        ``utilisation`` (by replica, the share of time in steps), ``faults``, ``wall_s`` and
        ``simulated_requests_per_s`` (what the simulation itself took).
    """
    timeline, chosen = done.timeline, done.settings
    ended = ~np.isnan(timeline.finished)
    elapsed = float(np.nanmax(timeline.finished)) if ended.any() else 0.0
    count = len(done.trace.requests)
    return {
        "scheduling": chosen.policies.scheduling.name,
        "eviction": chosen.policies.eviction.name,
        "num_blocks": chosen.scheduler.num_blocks - 1,
        "block_size": chosen.scheduler.block_size,
        "replicas": chosen.fleet.replicas,
        "routing": chosen.policies.routing.name,
        "num_requests": count,
        "completed": int(ended.sum()),
        "rejected": int(timeline.rejected.sum()),
        "rate": done.trace.rate,
        "elapsed_s": elapsed,
        "requests_per_s": int(ended.sum()) / elapsed if elapsed else 0.0,
        "output_tokens_per_s": int(timeline.num_tokens.sum()) / elapsed if elapsed else 0.0,
        "hit_rate": _hit_rate(done),
        **_latencies(done, ended),
        "goodput": None if chosen.fleet.slo is None else _goodput(done, chosen.fleet.slo, elapsed),
        "preemptions": sum(stats.preemptions for stats in done.stats),
        "fairness": fairness(done),
        "steps": sum(done.steps),
        "utilisation": [busy / elapsed if elapsed else 0.0 for busy in done.busy_s],
        "faults": list(done.faults),
        "wall_s": done.wall_s,
        "simulated_requests_per_s": count / done.wall_s,
    }


def _hit_rate(done: Simulation) -> float:
    size = done.settings.scheduler.block_size
    blocks = sum(-(-one.input_length // size) for one in done.trace.requests)
    return int((done.timeline.num_cached // size).sum()) / blocks


def _latencies(done: Simulation, ended: NDArray[np.bool_]) -> Answer:
    timeline = done.timeline
    return {
        "ttft_s": percentiles((timeline.first - timeline.arrived)[ended].tolist()),
        "itl_s": weighted_percentiles(*timeline.gaps()),
        "tpot_s": percentiles(_tpot(done)[ended & (timeline.num_tokens > 1)].tolist()),
        "e2e_s": percentiles((timeline.last - timeline.arrived)[ended].tolist()),
        "queue_s": percentiles((timeline.started - timeline.arrived)[ended].tolist()),
    }


def _tpot(done: Simulation) -> NDArray[np.float64]:
    """Mean seconds a token after the first, float64 [num_requests]; 0 where there is none."""
    timeline = done.timeline
    return np.asarray((timeline.last - timeline.first) / np.maximum(timeline.num_tokens - 1, 1), dtype=np.float64)


def _goodput(done: Simulation, slo: Slo, elapsed: float) -> Answer:
    timeline = done.timeline
    met = ~np.isnan(timeline.finished)
    for bound, values in (
        (slo.ttft, timeline.first - timeline.arrived),
        (slo.itl, _tpot(done)),
        (slo.e2e, timeline.last - timeline.arrived),
    ):
        if bound is not None:
            met &= values <= bound  # of a request that did not end nan, which is not
    count = int(met.sum())
    return {"requests_per_s": count / elapsed if elapsed else 0.0, "share": count / len(met)}


def print_simulations(title: str, labels: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> None:
    """A column each.

    Args:
        title: above the table.
        labels: of the columns.
        answers: of `describe`, as many.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    table.add_column("latencies: p50 / p99", no_wrap=True)
    for label in labels:
        table.add_column(Text(label), justify="right", no_wrap=True)
    for name, take in _ROWS:
        cells = [take(answer) for answer in answers]
        if any(cell != "-" for cell in cells):
            table.add_row(name, *map(Text, cells))
    console = Console()
    console.print(table)
    for label, answer in zip(labels, answers, strict=True):
        for fault in answer["faults"]:
            console.print(Text(f"{label}: {fault}"))


def _times(key: str) -> Callable[[Mapping[str, Any]], str]:
    def cell(answer: Mapping[str, Any]) -> str:
        times = answer[key]
        if times is None:
            return "-"
        unit, factor = ("s", 1.0) if times["p50"] >= 1 else ("ms", 1e3)
        return " / ".join(f"{times[name] * factor:,.4g}" for name in ("p50", "p99")) + f" {unit}"

    return cell


def _reference(name: str) -> Callable[[Mapping[str, Any]], str]:
    def cell(answer: Mapping[str, Any]) -> str:
        rates = answer.get("reference_hit_rates", {})
        return f"{rates[name]:.4f}" if name in rates else "-"

    return cell


def _goodput_cell(answer: Mapping[str, Any]) -> str:
    goodput = answer["goodput"]
    return "-" if goodput is None else f"{goodput['requests_per_s']:.3g}/s ({goodput['share']:.1%})"


def _fairness_cell(answer: Mapping[str, Any]) -> str:
    found = answer["fairness"]
    if found["jain"] is None:
        return "-"
    worst = f", worst share {found['worst_share']:.2f}" if found["by"] == "tenant" else ""
    return f"{found['jain']:.3f} by {found['by']}{worst}"


def _rejected_cell(answer: Mapping[str, Any]) -> str:
    return str(answer["rejected"]) if answer["rejected"] else "-"


_ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("requests done", lambda answer: f"{answer['completed']:,} of {answer['num_requests']:,}"),
    ("refused", _rejected_cell),
    ("requests/s", lambda answer: f"{answer['requests_per_s']:.3g}"),
    ("output tokens/s", lambda answer: f"{answer['output_tokens_per_s']:,.0f}"),
    ("hit rate", lambda answer: f"{answer['hit_rate']:.4f}"),
    ("  fifo, cache alone", _reference("fifo")),
    ("  lru, cache alone", _reference("lru")),
    ("  optimum", _reference("optimum")),
    ("time to first token", _times("ttft_s")),
    ("between tokens", _times("itl_s")),
    ("mean between, a request", _times("tpot_s")),
    ("end to end", _times("e2e_s")),
    ("queued", _times("queue_s")),
    ("goodput", _goodput_cell),
    ("fairness", _fairness_cell),
    ("preemptions", lambda answer: f"{answer['preemptions']:,}"),
    ("busy", lambda answer: f"{sum(answer['utilisation']) / len(answer['utilisation']):.0%}"),
    ("simulated requests/s", lambda answer: f"{answer['simulated_requests_per_s']:,.0f}"),
)
