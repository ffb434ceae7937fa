"""`calibrate`: how long the steps of an engine take on this machine, as a deployment for simulations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcore.bench.percentiles import percentiles
from vcore.config import EngineConfig
from vcore.engine.build import Engine
from vcore.engine.request import EngineRequest
from vcore.sampling_params import SamplingParams
from vcore.simulate.calibration_batches import CalibrationBatch, CalibrationRow, EngineLimits, calibration_batches
from vcore.simulate.deployment import Deployment
from vcore.simulate.engine_replay import ReplayClock, TimedSteps, WallClock
from vcore.simulate.recorded_engine import build_recorded
from vcore.simulate.step_log import StepLog
from vcore.simulate.step_time import StepLoad
from vcore.simulate.step_time_fit import fit_step_time, relative_errors

__all__ = ["Calibration", "calibrate"]

_STEPS = 6
"""Tokens that each request generates."""
_MOST_OVER = 3.0
_IDLE_S = 0.1
"""Of idleness; far more than a processor waits before it sleeps."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A deployment, and how well it tells the steps that it was fitted to."""

    deployment: Deployment
    num_points: int
    """Different loads that were measured."""
    error: dict[str, float]
    """Percentiles of the relative errors."""


def calibrate(
    config: EngineConfig,
    *,
    name: str | None = None,
    repeats: int = 3,
    base_dir: Path | None = None,
    plugins: Sequence[object] = (),
    report: Callable[[str], None] = lambda line: None,
    clock: ReplayClock | None = None,
) -> Calibration:
    """Run batches through the engine, steps in flight one at a time, and fit `StepTimeModel` to the means.

    Prompts are random, and answers are sampled at temperature 1, the default of most clients. What is run is
    `calibration_batches`, from the engine's own limits; each pass over it begins with other tokens, so that it does the
    same as the one before.

    Args:
        config: of the engine.
        name: what the deployment is called.
        repeats: how often each batch is measured, after one time that does not count.
        base_dir: what relative paths in `config` are relative to.
        plugins: plugin objects beside those that are installed.
        report: told what is done.
        clock: None for seconds as they pass.

    Raises:
        ConfigError: the configuration cannot be met here.
    """
    clock = clock or WallClock()
    log = StepLog()
    engine = build_recorded(config, log, base_dir=base_dir, plugins=plugins)
    try:
        loads, seconds = _measure(engine, log, repeats, report, clock)
        scheduler = engine.config.scheduler
        model = fit_step_time(loads, seconds)
        deployment = Deployment(
            name=name or str(engine.config.model.path),
            derived_from=f"{len(loads)} different steps in {repeats} passes, vcore simulate --calibrate",
            step_time=model,
            cache_tokens=max(1, _cache_tokens(engine)),
            max_num_seqs=_resolved(scheduler.max_num_seqs),
            max_num_batched_tokens=_resolved(scheduler.max_num_batched_tokens),
        )
    finally:
        engine.core.shutdown()
    error = percentiles(relative_errors(model, loads, seconds).tolist())
    assert error is not None
    return Calibration(deployment, len(loads), error)


def _measure(
    engine: Engine, log: StepLog, repeats: int, report: Callable[[str], None], clock: ReplayClock
) -> tuple[list[StepLoad], list[float]]:
    """Different loads, and the mean time of each; loads with prompts are of one pass each."""
    times: dict[StepLoad, list[float]] = {}
    for repeat in range(repeats + 1):
        batches = list(calibration_batches(_limits(engine), repeat))
        report(f"pass {repeat + 1} of {repeats + 1}: {len(batches)} batches")
        log.entries.clear()
        tokens = _Tokens(engine.vocab_size, repeat)
        for number, batch in enumerate(batches):
            _run(engine, log, batch, f"{repeat}-{number}", tokens, clock)
        if repeat:
            for entry in log.entries:
                times.setdefault(entry.load, []).append(entry.seconds)
    return list(times), [_typical(each) for each in times.values()]


def _typical(seconds: Sequence[float]) -> float:
    """The mean, because waiting adds up; a step that something else held up counts `_MOST_OVER` medians at most."""
    return float(np.mean(np.minimum(seconds, _MOST_OVER * np.median(seconds))))


def _limits(engine: Engine) -> EngineLimits:
    scheduler = engine.config.scheduler
    return EngineLimits(
        max_num_seqs=_resolved(scheduler.max_num_seqs),
        max_num_batched_tokens=_resolved(scheduler.max_num_batched_tokens),
        max_model_len=engine.max_model_len - _STEPS,
        cache_tokens=_cache_tokens(engine),
        prefix_caching=engine.config.cache.prefix_caching,
    )


class _Tokens:
    """Prompts of rows: the same document is the same tokens, and all else is drawn."""

    def __init__(self, vocab_size: int, seed: int) -> None:
        self._vocab_size = vocab_size
        self._seed = seed
        self._rng = np.random.default_rng((seed, 0))

    def of(self, batch: CalibrationBatch, row: CalibrationRow) -> list[int]:
        rng = np.random.default_rng((self._seed, 1 + batch.context, row.document))
        document: list[int] = rng.integers(0, self._vocab_size, size=batch.context).tolist()
        own: list[int] = self._rng.integers(0, self._vocab_size, size=row.tail).tolist()
        return document[: row.context] + own


def _run(engine: Engine, log: StepLog, batch: CalibrationBatch, name: str, tokens: _Tokens, clock: ReplayClock) -> None:
    """Compute the prompts and some tokens of each; the late one comes when the others generate."""
    core = engine.core
    params = SamplingParams(temperature=1.0, max_tokens=_STEPS, ignore_eos=True)
    rows = batch.rows if batch.late is None else (*batch.rows, batch.late)
    requests = [
        EngineRequest(
            request_id=f"{name}-{number}",
            prompt_token_ids=tokens.of(batch, row),
            params=params,
            max_tokens=_STEPS,
            arrival_time=0.0,
            seed=number,
        )
        for number, row in enumerate(rows)
    ]
    if batch.is_after_idleness:
        clock.sleep(_IDLE_S)
    steps = TimedSteps(core, log, clock)
    for request in requests[: len(batch.rows)]:
        core.add_request(request)
    while core.stats().waiting:
        steps.make()
    for request in requests[len(batch.rows) :]:
        core.add_request(request)
    while core.has_unfinished:
        steps.make()


def _cache_tokens(engine: Engine) -> int:
    cache = engine.config.cache
    return (_resolved(cache.num_blocks) - 1) * _resolved(cache.block_size)


def _resolved(value: int | str) -> int:
    assert isinstance(value, int), "an engine's configuration is resolved"
    return value
