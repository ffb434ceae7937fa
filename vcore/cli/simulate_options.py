"""The options that ``vcore simulate`` and its subcommands have in common, declared once."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcore.cli.option_values import one_of, positive
from vcore.cli.shared_options import Config, Plugins, Set
from vcore.errors import ConfigError

if TYPE_CHECKING:
    from vcore.simulate.scenario import Scenario
    from vcore.traces import Trace

__all__ = ["Plot", "ScenarioOptions", "Schedulings", "TraceOptions", "expanded"]

Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the results there, such as out.png.")]
Schedulings = Annotated[
    list[str] | None, typer.Option("--scheduling", metavar="POLICY", help="A scheduling policy; may be given again.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """What is served, and by what: options of all commands that serve a trace."""

    trace: Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Recorded requests.")] = None
    trace_format: Annotated[str, typer.Option("--trace-format", help="auto, mooncake, azure, aiperf or csv.")] = "auto"
    length_scale: Annotated[
        float | None, typer.Option("--length-scale", help="Multiplies the lengths of the trace.")
    ] = None
    num_requests: Annotated[int | None, typer.Option("--num-requests", min=1, help="Only so many of the first.")] = None
    rate: Annotated[float | None, typer.Option("--rate", help="Arrivals a second; as recorded.")] = None
    config: Config = None
    set_: Set = None
    plugins: Plugins = None

    def read(self) -> Trace:
        """The trace, at its recorded pace.

        Raises:
            ConfigError: there is none, it is wrong, or too much is asked of its lengths.
        """
        from vcore.simulate.scenario import TraceChoice

        if self.trace is None:
            raise ConfigError("there is nothing to serve: add --trace FILE")
        scale = None if self.length_scale is None else positive("--length-scale", self.length_scale)
        choice = TraceChoice(
            path=self.trace, format=self.trace_format, length_scale=scale, num_requests=self.num_requests
        )
        return choice.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioOptions(TraceOptions):
    """What a command line says of a scenario."""

    deployment: Annotated[
        str,
        typer.Option("--deployment", metavar="NAME|FILE", help="How long steps take, and how much the cache holds."),
    ] = "llama-3.1-8b-h100"
    arrivals: Annotated[str, typer.Option("--arrivals", help="trace, poisson, fixed or burst.")] = "trace"
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Engines that a routing policy chooses from.")] = 1
    routing: Annotated[
        str | None, typer.Option("--routing", metavar="POLICY", help="Which replica a request is sent to.")
    ] = None
    slo: Annotated[str | None, typer.Option("--slo", metavar="KEY=SECONDS,...", help="Such as ttft=2,itl=0.1.")] = None
    known_lengths: Annotated[
        bool, typer.Option("--known-lengths", help="Requests say how long their answers will be.")
    ] = False
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn: arrivals, routes.")] = 0

    def scenario(self, **changes: Any) -> Scenario:
        """Read what there is to be read.

        Args:
            changes: of the scenario's fields.

        Raises:
            ConfigError: something is unknown, malformed or contradictory.
        """
        from vcore.bench.serve.arrivals import Arrivals
        from vcore.bench.serve.slo import parse_slo
        from vcore.config.cli_options import config_from_cli
        from vcore.simulate.deployment import read_deployment
        from vcore.simulate.scenario import Scenario
        from vcore.simulate.settings import FleetOptions

        tree, base_dir = config_from_cli(self.config, self.set_ or [], self.plugins or [])
        fleet = FleetOptions(
            replicas=self.replicas,
            seed=self.seed,
            slo=None if self.slo is None else parse_slo(self.slo),
            known_lengths=self.known_lengths,
        )
        deployment = read_deployment(self.deployment)
        trace = self.read()
        rate = None if self.rate is None else positive("--rate", self.rate)
        values = {"trace": trace, "deployment": deployment, "config": tree, "fleet": fleet, "base_dir": base_dir}
        law = one_of(Arrivals, "--arrivals", self.arrivals)
        scenario = Scenario(**{**values, "rate": rate, "arrivals": law, **changes})
        return scenario.with_policies(routing=self.routing)


def expanded(options: type[TraceOptions], *, without: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Any]:
    """Make a function that takes `options` one that takes each of their fields as an option of the command line.

    Args:
        options: a dataclass of options; those of `without` keep their defaults.
        without: names of fields that the command does not have, or has in another form.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    shared = {
        one.name: inspect.Parameter(
            one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name]
        )
        for one in fields(options)
        if one.name not in without
    }
    assert all(one.default is not MISSING for one in fields(options)), "options have defaults"

    def decorate(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in shared}
            function(options=options(**chosen), **values)

        own = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for one in inspect.signature(function, eval_str=True).parameters.values()
            if one.name != "options"
        ]
        parameters = [shared["trace"], *own, *(one for name, one in shared.items() if name != "trace")]
        # What typer reads of a function.
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        del command.__wrapped__
        return command

    return decorate
