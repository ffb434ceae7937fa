"""``vcore simulate`` in time: one scenario, policies side by side, a grid of loads and sizes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcore.cli.option_values import positive, positive_numbers
from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Json
from vcore.cli.simulate_options import Plot, ScenarioOptions, Schedulings, expanded
from vcore.errors import ConfigError

if TYPE_CHECKING:
    from vcore.simulate.scenario import Outcome, Scenario

__all__ = ["compare", "run_one", "sweep"]

Evictions = Annotated[
    list[str] | None, typer.Option("--eviction", metavar="POLICY", help="An eviction policy; may be given again.")
]


def run_one(options: ScenarioOptions, *, plot: Path | None, as_json: bool, **changes: Any) -> None:
    """Simulate one scenario and print what came of it; the changes are of the scenario's fields.

    Raises:
        ConfigError: something is unknown, malformed or contradictory.
    """
    _check_plot(plot)
    scheduling, eviction = changes.pop("scheduling", None), changes.pop("eviction", None)
    scenario = options.scenario(**changes).with_policies(scheduling, eviction)
    with reserved_stdout(as_json) as emit:
        outcome = scenario.run(reference=True, report=_progress_of(scenario, 1))
        if as_json:
            emit(outcome.answer)
        else:
            _print([(outcome.answer["scheduling"], outcome)])
    _plot(plot, [(outcome.answer["scheduling"], outcome)])


@expanded(ScenarioOptions, without=("routing",))
def compare(
    options: ScenarioOptions,
    scheduling: Schedulings = None,
    eviction: Evictions = None,
    routing: Annotated[
        list[str] | None, typer.Option("--routing", metavar="POLICY", help="A routing policy; may be given again.")
    ] = None,
    num_blocks: Annotated[int | None, typer.Option("--num-blocks", min=1, help="Of each replica's cache.")] = None,
    load: Annotated[float | None, typer.Option("--load", help="Times the recorded pace.")] = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Policies side by side: every scheduling policy that is given, with every eviction and routing policy."""
    _check_plot(plot)
    if routing and len(routing) > 1 and options.replicas == 1:
        raise ConfigError("one replica gets all requests, whatever routes them: add --replicas N")
    base = options.scenario(num_blocks=num_blocks, load=None if load is None else positive("--load", load))
    variants = base.variants(scheduling=scheduling or (), eviction=eviction or (), routing=routing or ())
    if len(variants) < 2:
        raise ConfigError("there is nothing to compare: give --scheduling, --eviction or --routing more than once")
    with reserved_stdout(as_json) as emit:
        outcomes = _run_all(variants)
        if as_json:
            emit({"runs": [{"label": label, **outcome.answer} for label, outcome in outcomes]})
        else:
            _print(outcomes)
    _plot(plot, outcomes)


@expanded(ScenarioOptions, without=("rate", "replicas"))
def sweep(
    options: ScenarioOptions,
    load: Annotated[
        str | None, typer.Option("--load", metavar="X[,X...]", help="Times the recorded pace, such as 0.5,1,1.5.")
    ] = None,
    num_blocks: Annotated[
        str | None, typer.Option("--num-blocks", metavar="C[,C...]", help="Of each replica's cache.")
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option("--replicas", metavar="N[,N...]", help="Engines that a routing policy chooses from."),
    ] = None,
    scheduling: Schedulings = None,
    eviction: Evictions = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """A grid: every load with every cache size, number of replicas and policy. Plots run along the first axis."""
    _check_plot(plot)
    axes = {
        "load": tuple(positive("--load", value) for value in positive_numbers("--load", load)),
        "num_blocks": _counts("--num-blocks", num_blocks),
        "replicas": _counts("--replicas", replicas),
    }
    along = next((name for name, values in axes.items() if len(values) > 1), None)
    if along is None:
        raise ConfigError("there is nothing to sweep: give --load, --num-blocks or --replicas several values")
    variants = options.scenario().variants(
        scheduling=scheduling or (),
        eviction=eviction or (),
        loads=axes["load"],
        num_blocks=[int(value) for value in axes["num_blocks"]],
        replicas=[int(value) for value in axes["replicas"]],
    )
    with reserved_stdout(as_json) as emit:
        outcomes = _run_all(variants)
        if as_json:
            emit({"along": along, "runs": [{"label": label, **outcome.answer} for label, outcome in outcomes]})
        else:
            _print(outcomes)
    if plot is not None:
        _plot_sweep(plot, along, outcomes)


def _counts(option: str, value: str | None) -> tuple[float, ...]:
    numbers = positive_numbers(option, value)
    if any(number != int(number) for number in numbers if number < float("inf")) or float("inf") in numbers:
        raise ConfigError(f"{option}: found {value!r}, expected whole numbers with commas between")
    return numbers


def _run_all(variants: Sequence[tuple[str, Scenario]]) -> list[tuple[str, Outcome]]:
    outcomes = []
    for number, (label, scenario) in enumerate(variants, 1):
        outcomes.append((label, scenario.run(report=_progress_of(scenario, number, len(variants)))))
    return outcomes


def _progress_of(scenario: Scenario, number: int, count: int = 1) -> Any:
    """What shows how far a simulation is, on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        return None
    total = len(scenario.trace.requests)

    def show(sent: int) -> None:
        print(f"\rsimulation {number} of {count}: {sent:,} of {total:,} requests", end="", file=sys.stderr, flush=True)

    return show


def _print(outcomes: Sequence[tuple[str, Outcome]]) -> None:
    from vcore.simulate.report import print_simulations

    if sys.stderr.isatty():
        print(file=sys.stderr)
    first = outcomes[0][1].answer
    title = f"{first['trace']} on {first['deployment']}"
    print_simulations(title, [label for label, _ in outcomes], [outcome.answer for _, outcome in outcomes])
    for label, outcome in outcomes:
        if outcome.answer["num_cut"]:
            print(
                f"{label}: {outcome.answer['num_cut']} requests were cut to what the cache or the model's length holds"
            )


def _check_plot(plot: Path | None) -> None:
    if plot is not None:
        from vcore.bench.serve.plot import check_plot

        check_plot(plot)


def _plot(plot: Path | None, outcomes: Sequence[tuple[str, Outcome]]) -> None:
    if plot is not None:
        from vcore.simulate.plot import plot_simulations

        title = f"{outcomes[0][1].answer['trace']} on {outcomes[0][1].answer['deployment']}"
        plot_simulations(plot, title, [label for label, _ in outcomes], [one.simulation for _, one in outcomes])


def _plot_sweep(plot: Path, along: str, outcomes: Sequence[tuple[str, Outcome]]) -> None:
    from vcore.simulate.plot import plot_sweep

    lines: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for _, outcome in outcomes:
        answer = outcome.answer
        others = [answer["scheduling"], answer["eviction"]]
        others += [f"{answer[name]} {name}" for name in ("num_blocks", "replicas") if name != along]
        value = answer[along]
        lines.setdefault(", ".join(others), []).append((value, answer))
    plot_sweep(plot, f"{outcomes[0][1].answer['trace']} on {outcomes[0][1].answer['deployment']}", along, lines)
