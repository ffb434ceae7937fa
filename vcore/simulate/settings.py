"""`SimulationSettings`: what is simulated. `resolve_settings`: the same from a configuration and a deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from vcore.bench.serve.slo import Slo
from vcore.config import EngineConfig
from vcore.engine.resolve.policies import choose_policy
from vcore.errors import ConfigError
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.routing import RoutingContext, RoutingPolicy
from vcore.interfaces.scheduling import SchedulingContext, SchedulingPolicy
from vcore.plugins import Catalog, CatalogEntry, discover
from vcore.scheduler import SchedulerSettings
from vcore.simulate.cache_replay import check_num_blocks
from vcore.simulate.checked_routing import CheckedRouting
from vcore.simulate.deployment import Deployment
from vcore.simulate.replica import Clock
from vcore.simulate.scheduler import SimulatedScheduler
from vcore.simulate.step_time import StepTime
from vcore.traces import Trace

__all__ = ["FleetOptions", "Policies", "SimulationSettings", "resolve_settings"]

_BLOCK_SIZE = 16
"""Tokens of a block where neither the configuration nor the trace says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """What a configuration of one engine does not say."""

    replicas: int = 1
    seed: int = 0
    """Of what is drawn by the routing policy."""
    slo: Slo | None = None
    """Counts goodput, and is told to scheduling policies as each request's targets."""
    known_lengths: bool = False
    """Whether requests say how many tokens they will generate."""
    together: bool = True
    """Whether uneventful steps are made together."""


class Policies:
    """The policies that a configuration chooses: two made anew for each scheduler, and one for each fleet."""

    def __init__(self, config: EngineConfig, catalog: Catalog) -> None:
        """Raises:
        PluginError: one is missing, broken or ambiguous, or its options do not fit.
        """
        self._catalog = catalog
        self._scheduling, _ = choose_policy(config.scheduler.policy, "scheduler.policy", catalog)
        self._eviction, _ = choose_policy(config.cache.eviction, "cache.eviction", catalog)
        self._routing, _ = choose_policy(config.simulation.routing, "simulation.routing", catalog)
        self._scheduling_options = catalog.parse_options(self._scheduling, config.scheduler.policy.options)
        self._eviction_options = catalog.parse_options(self._eviction, config.cache.eviction.options)
        self._routing_options = catalog.parse_options(self._routing, config.simulation.routing.options)

    @classmethod
    def of(cls, config: EngineConfig, base_dir: Path | None = None) -> Policies:
        """With the plugins that are installed, or that `config` names."""
        return cls(config, discover(config.plugins, base_dir=base_dir))

    @property
    def scheduling(self) -> CatalogEntry:
        """The scheduling policy's entry."""
        return self._scheduling

    @property
    def eviction(self) -> CatalogEntry:
        """The eviction policy's entry."""
        return self._eviction

    @property
    def routing(self) -> CatalogEntry:
        """The routing policy's entry."""
        return self._routing

    def make_routing(self, settings: SchedulerSettings, fleet: FleetOptions) -> CheckedRouting:
        """A routing policy for a fleet of at least two replicas, each with these settings."""
        context = RoutingContext(
            num_replicas=fleet.replicas,
            max_num_seqs=settings.max_num_seqs,
            num_blocks=settings.num_blocks - 1,
            block_size=settings.block_size,
            seed=fleet.seed,
        )
        policy = self._catalog.create(self._routing, options=self._routing_options, context=context)
        return CheckedRouting(cast(RoutingPolicy, policy), self._routing.title, strict=settings.strict)

    def make_scheduler(
        self, settings: SchedulerSettings, clock: Clock, new_hash: Callable[[], bytes]
    ) -> SimulatedScheduler:
        """A scheduler with policies of its own."""
        context = SchedulingContext(
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            block_size=settings.block_size,
            num_blocks=settings.num_blocks,
            chunked_prefill=settings.chunked_prefill,
        )
        policy = self._catalog.create(self._scheduling, options=self._scheduling_options, context=context)

        def make_eviction(context: EvictionContext) -> EvictionPolicy:
            timed = replace(context, clock=clock)
            made = self._catalog.create(self._eviction, options=self._eviction_options, context=timed)
            return cast(EvictionPolicy, made)

        return SimulatedScheduler(
            settings,
            cast(SchedulingPolicy, policy),
            make_eviction,
            policy_name=self._scheduling.title,
            eviction_name=self._eviction.title,
            clock=clock,
            new_hash=new_hash,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """All that a simulation needs beside its trace."""

    scheduler: SchedulerSettings
    policies: Policies
    step_time: StepTime
    fleet: FleetOptions

    def with_blocks(self, num_blocks: int) -> SimulationSettings:
        """The same with so many blocks for requests."""
        return replace(self, scheduler=replace(self.scheduler, num_blocks=num_blocks + 1))


def resolve_settings(
    config: EngineConfig,
    deployment: Deployment,
    trace: Trace,
    fleet: FleetOptions,
    *,
    num_blocks: int | None = None,
    base_dir: Path | None = None,
) -> SimulationSettings:
    """What is left open is taken from the deployment, and from the trace.

    Args:
        config: of each engine; what it says of models, devices and the like plays no part.
        deployment: of each engine.
        trace: its blocks are the cache's, where `config` leaves their size open.
        fleet: the rest.
        num_blocks: blocks for requests, one less than ``cache.num_blocks``, over which it wins.
        base_dir: where relative paths of ``config.plugins.load`` start.

    Raises:
        ConfigError: nothing says how large the cache is, or numbers contradict each other.
        PluginError: a policy is missing, broken or ambiguous.
    """
    cache, scheduler = config.cache, config.scheduler
    block_size = cache.block_size if cache.block_size != "auto" else (trace.block_size or _BLOCK_SIZE)
    longest = max(one.input_length + one.output_length for one in trace.requests)
    max_model_len = longest if config.model.max_model_len == "auto" else config.model.max_model_len
    seqs, tokens = scheduler.max_num_seqs, scheduler.max_num_batched_tokens
    blocks = (num_blocks + 1) if num_blocks is not None else cache.num_blocks
    if blocks == "auto":
        blocks = _blocks_of(deployment, block_size)
    check_num_blocks(blocks - 1)
    try:
        settings = SchedulerSettings(
            max_num_seqs=deployment.max_num_seqs if seqs == "auto" else seqs,
            max_num_batched_tokens=deployment.max_num_batched_tokens if tokens == "auto" else tokens,
            max_model_len=max_model_len,
            block_size=block_size,
            num_blocks=blocks,
            prefix_caching=cache.prefix_caching,
            long_prefill_threshold=scheduler.long_prefill_threshold,
            chunked_prefill=scheduler.chunked_prefill,
            strict=config.plugins.strict,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return SimulationSettings(
        scheduler=settings, policies=Policies.of(config, base_dir), step_time=deployment.step_time, fleet=fleet
    )


def _blocks_of(deployment: Deployment, block_size: int) -> int:
    if deployment.cache_tokens is None:
        raise ConfigError(
            f"the deployment {deployment.name!r} does not say how much its cache holds: add --num-blocks C, or "
            "cache_tokens to its file"
        )
    return deployment.cache_tokens // block_size + 1
