"""`Scenario`: a trace, engines and a load, and the grids of them that are compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vcore.bench.serve.arrivals import Arrivals, arrival_times
from vcore.config import EngineConfig, PluginChoice
from vcore.config.node import ConfigNode
from vcore.errors import ConfigError
from vcore.simulate.deployment import Deployment
from vcore.simulate.reference import reference_rates
from vcore.simulate.report import describe
from vcore.simulate.settings import FleetOptions, resolve_settings
from vcore.simulate.simulation import Simulation, simulate
from vcore.traces import Trace, cut_lengths, read_trace, scale_lengths, scale_times

__all__ = ["BURST_SIZE", "Outcome", "Scenario", "TraceChoice"]

BURST_SIZE = 8
"""Requests that arrive together under `Arrivals.BURST`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceChoice:
    """A file of requests, and what is to be made of it."""

    path: Path
    format: str = "auto"
    length_scale: float | None = None
    num_requests: int | None = None
    """Only so many of the first."""

    def read(self) -> Trace:
        """The trace.

        Raises:
            ConfigError: the file is wrong, or too much is asked of its lengths.
        """
        trace = read_trace(self.path, self.format, max_requests=self.num_requests)
        return trace if self.length_scale is None else scale_lengths(trace, self.length_scale)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A simulation, and what it says."""

    scenario: Scenario
    simulation: Simulation
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated."""

    trace: Trace
    deployment: Deployment
    config: EngineConfig
    fleet: FleetOptions
    base_dir: Path | None = None
    num_blocks: int | None = None
    """Blocks for requests, of each replica; None for what the configuration or the deployment says."""
    rate: float | None = None
    """Arrivals a second; None for as recorded."""
    load: float | None = None
    """How many times the recorded pace."""
    arrivals: Arrivals = Arrivals.TRACE
    """Whether requests arrive at the recorded times, scaled, or at times drawn anew, as many a second."""

    def run(self, *, reference: bool = False, report: Callable[[int], None] | None = None) -> Outcome:
        """Simulate.

        Args:
            reference: whether to say what the cache alone would hit, too.
            report: told of the number of requests that were sent.

        Raises:
            ConfigError: something does not fit.
            PluginError: a policy is missing, broken or ambiguous.
            PolicyError: a policy failed, in strict mode.
        """
        settings = resolve_settings(
            self.config,
            self.deployment,
            self.trace,
            self.fleet,
            num_blocks=self.num_blocks,
            base_dir=self.base_dir,
        )
        scheduler = settings.scheduler
        num_blocks = scheduler.num_blocks - 1
        # The last token of a request needs no room.
        most = min(scheduler.max_model_len, num_blocks * scheduler.block_size)
        trace, num_cut = cut_lengths(self._paced(), most)
        done = simulate(trace, settings, report=report)
        answer = {"trace": trace.name, "deployment": self.deployment.name, "num_cut": num_cut, "load": self.load}
        answer |= describe(done)
        if reference:
            size = num_blocks * self.fleet.replicas
            answer["reference_hit_rates"] = reference_rates(
                trace, size, scheduler.block_size, self.config, self.base_dir
            )
        return Outcome(self, done, answer)

    def _paced(self) -> Trace:
        trace = self._scaled()
        if self.arrivals is Arrivals.TRACE:
            return trace
        if trace.rate is None:
            raise ConfigError(f"{trace.name}: all requests arrive at once, which is no rate to draw arrivals of")
        rng = np.random.default_rng(self.fleet.seed)
        times = arrival_times(self.arrivals, trace.rate, len(trace.requests), rng, burst_size=BURST_SIZE).tolist()
        return replace(
            trace,
            requests=tuple(replace(one, arrival_s=at) for one, at in zip(trace.requests, times, strict=True)),
        )

    def _scaled(self) -> Trace:
        if self.rate is not None and self.load is not None:
            raise ConfigError("--rate and --load both set the pace: leave one out")
        if self.rate is not None:
            return scale_times(self.trace, self.rate)
        if self.load is not None and self.load != 1.0:
            if self.trace.rate is None:
                raise ConfigError(f"{self.trace.name}: all requests arrive at once, so there is no load to scale")
            return scale_times(self.trace, self.trace.rate * self.load)
        return self.trace

    def with_policies(
        self, scheduling: str | None = None, eviction: str | None = None, routing: str | None = None
    ) -> Scenario:
        """The same with other policies; one that the configuration names keeps the options that it has there."""
        config = self.config
        parts = {
            "scheduler": _with_choice(config.scheduler, "policy", scheduling),
            "cache": _with_choice(config.cache, "eviction", eviction),
            "simulation": _with_choice(config.simulation, "routing", routing),
        }
        return replace(self, config=config.model_copy(update=parts))

    def variants(
        self,
        *,
        scheduling: Sequence[str] = (),
        eviction: Sequence[str] = (),
        routing: Sequence[str] = (),
        loads: Sequence[float] = (),
        num_blocks: Sequence[int] = (),
        replicas: Sequence[int] = (),
    ) -> list[tuple[str, Scenario]]:
        """Every combination, with a label that says what differs; an empty axis stays as it is."""
        found = []
        axes = [_axis(values) for values in (scheduling, eviction, routing, loads, num_blocks, replicas)]
        varies = [len(axis) > 1 for axis in axes]
        for policy, evicts, routes, load, blocks, count in itertools.product(*axes):
            one = self.with_policies(policy, evicts, routes)
            if load is not None:
                one = replace(one, load=load, rate=None)
            if blocks is not None:
                one = replace(one, num_blocks=blocks)
            if count is not None:
                one = replace(one, fleet=replace(one.fleet, replicas=count))
            texts = (
                str(policy),
                str(evicts),
                str(routes),
                f"load {load:g}" if load is not None else "",
                f"{blocks} blocks",
                f"{count} replicas",
            )
            label = ", ".join(text for text, differs in zip(texts, varies, strict=True) if differs)
            found.append((label or self.trace.name, one))
        return found


def _with_choice(part: ConfigNode, key: str, name: str | None) -> ConfigNode:
    """A section whose `key` names the plugin `name`, or as it is."""
    chosen: PluginChoice = getattr(part, key)
    if name is None or name == chosen.name:
        return part
    return part.model_copy(update={key: PluginChoice(name=name)})


def _axis(values: Sequence[Any]) -> Sequence[Any]:  # of any of the axes
    return list(values) or [None]
