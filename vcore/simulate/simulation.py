"""`simulate`: a trace through a simulated fleet."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vcore.scheduler import SchedulerStats
from vcore.simulate.block_names import BlockNames
from vcore.simulate.checked_routing import CheckedRouting
from vcore.simulate.fleet import Fleet
from vcore.simulate.replica import Clock, Replica, StepWatcher
from vcore.simulate.request_maker import RequestMaker
from vcore.simulate.scheduler import SimulatedScheduler
from vcore.simulate.settings import SimulationSettings
from vcore.simulate.timeline import Timeline
from vcore.traces import Trace

__all__ = ["Simulation", "simulate"]

_COLLECTED = 200_000
"""Objects between two looks of the garbage collector."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What came of it."""

    trace: Trace
    settings: SimulationSettings
    timeline: Timeline
    stats: tuple[SchedulerStats, ...]
    """By replica, at the end."""
    steps: tuple[int, ...]
    """By replica, how many it made."""
    busy_s: tuple[float, ...]
    """By replica, seconds of steps."""
    faults: tuple[str, ...]
    """Policies that failed and were replaced by the core's own order."""
    wall_s: float
    """Seconds that the simulation itself took."""


def simulate(
    trace: Trace,
    settings: SimulationSettings,
    *,
    watcher: StepWatcher | None = None,
    report: Callable[[int], None] | None = None,
) -> Simulation:
    """Serve a trace in simulated time.

    Args:
        trace: no request of it is longer than the settings allow (`vcore.traces.cut_lengths`).
        settings: of the fleet.
        watcher: told of steps that are made for themselves, of all replicas.
        report: told of the number of requests that were sent, now and then.

    Raises:
        ConfigError: the blocks of the trace and of the cache do not fit each other.
        PolicyError: a policy failed, in strict mode.
    """
    began = time.perf_counter()
    scheduler = settings.scheduler
    names = BlockNames(trace, scheduler.block_size)
    timeline = Timeline(np.array([one.arrival_s for one in trace.requests], dtype=np.float64))

    def make_scheduler(clock: Clock) -> SimulatedScheduler:
        return settings.policies.make_scheduler(scheduler, clock, names.new)

    replicas = [
        Replica(
            make_scheduler,
            settings.step_time,
            timeline,
            scheduler.max_num_seqs,
            together=settings.fleet.together,
            watcher=watcher,
        )
        for _ in range(settings.fleet.replicas)
    ]
    routing = settings.policies.make_routing(scheduler, settings.fleet) if len(replicas) > 1 else None
    with _rare_collection():
        Fleet(replicas, routing).serve(trace, RequestMaker(trace, scheduler, names, settings.fleet), report)
    return Simulation(
        trace=trace,
        settings=settings,
        timeline=timeline,
        stats=tuple(replica.scheduler.stats() for replica in replicas),
        steps=tuple(replica.num_steps for replica in replicas),
        busy_s=tuple(replica.busy_s for replica in replicas),
        faults=_faults(replicas, routing),
        wall_s=time.perf_counter() - began,
    )


def _faults(replicas: Sequence[Replica], routing: CheckedRouting | None) -> tuple[str, ...]:
    """Of replicas that failed alike one line."""
    found = dict.fromkeys(fault for replica in replicas for fault in replica.scheduler.faults())
    if routing is not None and routing.standing.fault is not None:
        found[routing.standing.fault] = None
    return tuple(found)


@contextlib.contextmanager
def _rare_collection() -> Iterator[None]:
    """The garbage collector looks rarely, and at new objects only: requests are many and stay for long."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECTED, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
