"""`measure_fidelity`: one trace through a real engine and through a simulation of it by its own clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vcore.bench.percentiles import percentiles
from vcore.config import EngineConfig
from vcore.simulate.calibration import calibrate
from vcore.simulate.deployment import Deployment
from vcore.simulate.engine_replay import ReplayClock, WallClock, replay_engine, requests_of
from vcore.simulate.logged_times import LoggedTimes, logged_trace
from vcore.simulate.recorded_engine import build_recorded
from vcore.simulate.settings import FleetOptions, resolve_settings
from vcore.simulate.simulation import simulate
from vcore.simulate.step_log import StepLog
from vcore.simulate.step_time_fit import fit_step_time
from vcore.simulate.timeline import Timeline
from vcore.simulate.weighted import weighted_percentiles
from vcore.traces import Trace, cut_lengths

__all__ = ["measure_fidelity"]


def measure_fidelity(
    config: EngineConfig,
    trace: Trace,
    *,
    repeats: int = 3,
    base_dir: Path | None = None,
    plugins: Sequence[object] = (),
    report: Callable[[str], None] = lambda line: None,
    clock: ReplayClock | None = None,
) -> dict[str, Any]:
    """Calibrate an engine, serve a trace with it in real time, and simulate the same.

    Args:
        config: of the engine.
        trace: what arrives; requests that the engine cannot hold are cut.
        repeats: of the calibration.
        base_dir: what relative paths in `config` are relative to.
        plugins: plugin objects beside those that are installed.
        report: told what is done.
        clock: of calibration and replay; None for seconds as they pass.

    Returns:
        ``num_requests``, ``num_cut``, ``steps`` (of the engine), ``calibration_error``; ``engine``, ``simulation`` and
        ``fitted_to_run`` (a simulation whose step times were fitted to the engine's own steps of this run, so that the
        machine's other work is in both), each with ``hit_rate`` (cached over all prompt tokens), ``ttft_s``, ``itl_s``
        and ``e2e_s``; and ``driven_hit_rate``, of a simulation that takes arrivals and times from the engine's log: it
        is the engine's, so what ``simulation`` differs by comes from when things happen.

    Raises:
        ConfigError: the configuration cannot be met here.
    """
    clock = clock or WallClock()
    found = calibrate(config, repeats=repeats, base_dir=base_dir, plugins=plugins, report=report, clock=clock)
    served = _serve(config, found.deployment, trace, base_dir, plugins, report, clock)
    trace, log = served.trace, served.log
    settings = resolve_settings(served.config, found.deployment, trace, FleetOptions(), base_dir=base_dir)
    own = fit_step_time([entry.load for entry in log.entries], [entry.seconds for entry in log.entries])
    driven = replace(settings, step_time=LoggedTimes(log), fleet=FleetOptions(together=False))
    return {
        "num_requests": len(trace.requests),
        "num_cut": served.num_cut,
        "steps": len(log.entries),
        "calibration_error": found.error,
        "engine": _figures(trace, served.timeline),
        "simulation": _figures(trace, simulate(trace, settings).timeline),
        "fitted_to_run": _figures(trace, simulate(trace, replace(settings, step_time=own)).timeline),
        "driven_hit_rate": _hit_rate(trace, simulate(logged_trace(trace, log, served.entered), driven).timeline),
    }


@dataclass(frozen=True, slots=True)
class _Served:
    """What an engine did with a trace."""

    config: EngineConfig
    """Resolved, but for the executor and the model, which a simulation needs as they were given."""
    trace: Trace
    num_cut: int
    log: StepLog
    timeline: Timeline
    entered: list[int]


def _serve(
    config: EngineConfig,
    deployment: Deployment,
    trace: Trace,
    base_dir: Path | None,
    plugins: Sequence[object],
    report: Callable[[str], None],
    clock: ReplayClock,
) -> _Served:
    log = StepLog()
    engine = build_recorded(config, log, base_dir=base_dir, plugins=plugins)
    try:
        assert deployment.cache_tokens is not None, "a calibration says how much the cache holds"
        trace, num_cut = cut_lengths(trace, min(engine.max_model_len, deployment.cache_tokens))
        report(f"{len(trace.requests)} requests in real time, {trace.duration_s:.0f} s")
        timeline, entered = replay_engine(engine.core, list(requests_of(trace, engine.vocab_size)), log, clock)
        resolved = engine.config.model_copy(update={"executor": config.executor, "model": config.model})
    finally:
        engine.core.shutdown()
    return _Served(resolved, trace, num_cut, log, timeline, entered)


def _hit_rate(trace: Trace, timeline: Timeline) -> float:
    return float(timeline.num_cached.sum() / sum(one.input_length for one in trace.requests))


def _figures(trace: Trace, timeline: Timeline) -> dict[str, Any]:
    return {
        "hit_rate": _hit_rate(trace, timeline),
        "ttft_s": percentiles((timeline.first - timeline.arrived).tolist()),
        "itl_s": weighted_percentiles(*timeline.gaps()),
        "e2e_s": percentiles((timeline.last - timeline.arrived).tolist()),
    }
