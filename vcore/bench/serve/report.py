"""The result of ``vcore bench serve`` for programs (`describe`) and for people (`print_report`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vcore.bench.serve.bench import LoadOptions
from vcore.bench.serve.session import Session

__all__ = ["describe", "load_label", "print_report"]


def describe(session: Session, options: LoadOptions) -> dict[str, Any]:
    """Plain data for JSON.

    Args:
        session: what came of it.
        options: which loads there were.

    Returns:
        ``target``, ``model``, ``workload``, ``cut_requests``, ``arrivals``, ``seed``, ``max_concurrency``, ``slo``,
        ``offline`` (the best run of all requests at once, with all ``runs``, or None), ``comparison`` (None, or
        ``served`` and ``llm``, output tokens a second of the best run of each, their ``ratio``, and all runs of
        `LLM.generate` as ``llm_runs``) and ``loads``.
    """
    info, result = session.info, session.result
    best = result.best_offline
    comparison = None
    if best is not None and result.reference_rates:
        served, llm = float(best["output_tokens_per_s"]), max(result.reference_rates)
        comparison = {"served": served, "llm": llm, "ratio": served / llm, "llm_runs": result.reference_rates}
    return {
        "target": info.name,
        "model": info.model,
        "workload": session.source.name,
        "cut_requests": session.source.num_cut,
        "arrivals": options.arrivals.value,
        "seed": options.seed,
        "max_concurrency": options.max_concurrency,
        "slo": None if options.slo is None else options.slo.describe(),
        "offline": None if best is None else {**best, "runs": result.offline},
        "comparison": comparison,
        "loads": result.loads,
    }


def print_report(answer: Mapping[str, Any]) -> None:
    """A column a load; then what went wrong, and what to know about the generator."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [("offline", answer["offline"])] if answer["offline"] else []
    columns += [(load_label(load), load) for load in answer["loads"]]
    table = Table(title=Text(f"{answer['workload']} on {answer['model']}, {answer['target']}, {answer['arrivals']}"))
    table.add_column("latencies: p50 / p99 in ms")
    for label, _ in columns:
        table.add_column(Text(label), justify="right", no_wrap=True)
    for name, take in _ROWS:
        table.add_row(name, *(Text(take(load)) for _, load in columns))
    console = Console()
    console.print(table)
    for label, load in columns:
        for line in _remarks(label, load):
            console.print(Text(line))
    if answer["cut_requests"]:
        console.print(Text(f"{answer['cut_requests']} requests of the trace were cut to what the model serves"))
    if answer["comparison"]:
        served, llm, ratio = (answer["comparison"][key] for key in ("served", "llm", "ratio"))
        console.print(Text(f"served {served:,.0f} output tokens/s, LLM.generate {llm:,.0f}: {ratio:.3f}"))
        for name, rates in (
            ("served", [run["output_tokens_per_s"] for run in answer["offline"]["runs"]]),
            ("LLM.generate", answer["comparison"]["llm_runs"]),
        ):
            console.print(Text(f"  runs, {name}: {', '.join(f'{rate:,.0f}' for rate in rates)}"))


def load_label(load: Mapping[str, Any]) -> str:
    """What tells a load from the others."""
    if load["rate"] is None:
        return "as it comes"
    share = "" if load["of_offline"] is None else f" ({load['of_offline']:.0%})"
    return f"{load['rate']:.4g}/s{share}"


def _times(key: str) -> Callable[[Mapping[str, Any]], str]:
    def cell(load: Mapping[str, Any]) -> str:
        seconds = load[key]
        return "-" if seconds is None else f"{seconds['p50'] * 1e3:,.4g} / {seconds['p99'] * 1e3:,.4g}"

    return cell


def _goodput(load: Mapping[str, Any]) -> str:
    goodput = load["goodput"]
    return "-" if goodput is None else f"{goodput['requests_per_s']:.3g}/s ({goodput['share']:.0%})"


_ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("requests done", lambda load: str(load["completed"])),
    ("requests failed", lambda load: str(sum(load["errors"].values()))),
    ("most at a time", lambda load: str(load["peak_in_flight"])),
    ("requests/s", lambda load: f"{load['requests_per_s']:,.4g}"),
    ("output tokens/s", lambda load: f"{load['output_tokens_per_s']:,.0f}"),
    ("time to first token", _times("ttft_s")),
    ("between tokens", _times("itl_s")),
    ("mean between, a request", _times("tpot_s")),
    ("end to end", _times("e2e_s")),
    ("queued in the engine", _times("queue_s")),
    ("sent too late", _times("lag_s")),
    ("goodput", _goodput),
)


def _remarks(label: str, load: Mapping[str, Any]) -> list[str]:
    lines = [f"{label}: {number} x {kind}: {load['error_messages'][kind]}" for kind, number in load["errors"].items()]
    if load["short_outputs"]:
        lines.append(f"{label}: {load['short_outputs']} answers are shorter than was asked for")
    if load["unstated_usage"]:
        lines.append(f"{label}: {load['unstated_usage']} answers without usage: their chunks were counted as tokens")
    lag, ttft = load["lag_s"], load["ttft_s"]
    if ttft is not None and lag["p99"] > max(0.005, 0.1 * ttft["p50"]):
        late = f"{lag['p99'] * 1e3:,.1f} ms at p99"
        lines.append(f"{label}: the load generator itself was late, {late}, which counts in the latencies")
    return lines
