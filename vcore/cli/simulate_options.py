"""The options that ``vcore simulate``, ``simulate compare`` and ``simulate sweep`` have in common, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcore.cli.option_values import one_of, positive

if TYPE_CHECKING:
    from vcore.simulate.scenario import Scenario

__all__ = [
    "ArrivalLaw",
    "DeploymentName",
    "KnownLengths",
    "LengthScale",
    "NumRequests",
    "Plot",
    "Rate",
    "RoutingName",
    "ScenarioOptions",
    "Seed",
    "SloText",
    "TraceFile",
    "TraceFormat",
]

DEFAULT_DEPLOYMENT = "llama-3.1-8b-h100"

TraceFile = Annotated[Path, typer.Option("--trace", metavar="FILE", help="Recorded requests.")]
TraceFormat = Annotated[str, typer.Option("--trace-format", help="auto, mooncake, azure, aiperf or csv.")]
LengthScale = Annotated[float | None, typer.Option("--length-scale", help="Multiplies the lengths of the trace.")]
NumRequests = Annotated[int | None, typer.Option("--num-requests", min=1, help="Only so many of the first.")]
DeploymentName = Annotated[
    str, typer.Option("--deployment", metavar="NAME|FILE", help="How long steps take, and how much the cache holds.")
]
ArrivalLaw = Annotated[str, typer.Option("--arrivals", help="trace, poisson, fixed or burst.")]
Rate = Annotated[float | None, typer.Option("--rate", help="Arrivals a second; as recorded.")]
RoutingName = Annotated[str, typer.Option("--routing", help="round_robin, least_loaded, prefix_aware or power_of_two.")]
SloText = Annotated[str | None, typer.Option("--slo", metavar="KEY=SECONDS,...", help="Such as ttft=2,itl=0.1.")]
KnownLengths = Annotated[bool, typer.Option("--known-lengths", help="Requests say how long their answers will be.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of what routers draw.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the results there, such as out.png.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioOptions:
    """What a command line says of a scenario."""

    trace: Path
    trace_format: str
    length_scale: float | None
    num_requests: int | None
    deployment: str
    rate: float | None
    arrivals: str
    replicas: int
    routing: str
    slo: str | None
    known_lengths: bool
    seed: int
    config: Path | None
    set_: list[str] | None
    plugins: list[str] | None

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
        from vcore.simulate.routing import Routing
        from vcore.simulate.scenario import Scenario, TraceChoice
        from vcore.simulate.settings import FleetOptions

        tree, base_dir = config_from_cli(self.config, self.set_ or [], self.plugins or [])
        fleet = FleetOptions(
            replicas=self.replicas,
            routing=one_of(Routing, "--routing", self.routing),
            seed=self.seed,
            slo=None if self.slo is None else parse_slo(self.slo),
            known_lengths=self.known_lengths,
        )
        deployment = read_deployment(self.deployment)
        trace = TraceChoice(
            path=self.trace,
            format=self.trace_format,
            length_scale=None if self.length_scale is None else positive("--length-scale", self.length_scale),
            num_requests=self.num_requests,
        ).read()
        rate = None if self.rate is None else positive("--rate", self.rate)
        values = {"trace": trace, "deployment": deployment, "config": tree, "fleet": fleet, "base_dir": base_dir}
        law = one_of(Arrivals, "--arrivals", self.arrivals)
        return Scenario(**{**values, "rate": rate, "arrivals": law, **changes})
