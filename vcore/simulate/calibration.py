"""`calibrate`: how long the steps of an engine take on this machine, as a deployment for simulations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vcore.bench.percentiles import percentiles
from vcore.config import EngineConfig, load_config
from vcore.engine.build import Engine, build_engine
from vcore.engine.request import EngineRequest
from vcore.sampling_params import SamplingParams
from vcore.simulate.deployment import Deployment
from vcore.simulate.engine_replay import step_engine
from vcore.simulate.step_log import RECORDER, StepLog, recorder_spec
from vcore.simulate.step_time import StepLoad
from vcore.simulate.step_time_fit import fit_step_time, relative_errors

__all__ = ["Calibration", "calibrate"]

_PROMPTS = (4, 16, 64, 128, 256, 512, 1024, 2048, 4096)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_CONTEXTS = (16, 256, 1024, 4096)
_STEPS = 6
"""Decode steps of each batch."""
_MOST_TOKENS = 32_768
"""Of one batch's contexts together, so that no part of the grid takes long to set up."""


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
    clock: Callable[[], float] = time.perf_counter,
) -> Calibration:
    """Run batches through the engine, steps in flight one at a time, and fit `StepTimeModel` to the medians.

    Prompts are random, so nothing hits the cache; long ones are computed in chunks, so after computed tokens.

    Args:
        config: of the engine.
        name: what the deployment is called.
        repeats: how often each batch is measured, after one time that does not count.
        base_dir: what relative paths in `config` are relative to.
        plugins: plugin objects beside those that are installed.
        report: told what is done.
        clock: seconds, monotonic.

    Raises:
        ConfigError: the configuration cannot be met here.
    """
    log = StepLog()
    overrides: dict[str, Any] = {"executor": RECORDER, "runtime.async_scheduling": False, "model.skip_tokenizer": True}
    engine = build_engine(load_config(config, overrides), plugins=[*plugins, recorder_spec(log)], base_dir=base_dir)
    try:
        loads, seconds = _measure(engine, log, repeats, report, clock)
        scheduler = engine.config.scheduler
        model = fit_step_time(loads, seconds)
        deployment = Deployment(
            name=name or str(engine.config.model.path),
            derived_from=f"{len(loads)} loads, each the median of {repeats} steps, vcore simulate --calibrate",
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
    engine: Engine, log: StepLog, repeats: int, report: Callable[[str], None], clock: Callable[[], float]
) -> tuple[list[StepLoad], list[float]]:
    """Different loads, and the median time of each."""
    times: dict[StepLoad, list[float]] = {}
    batches = _batches(engine)
    for repeat in range(repeats + 1):
        report(f"pass {repeat + 1} of {repeats + 1}: {len(batches)} batches")
        log.entries.clear()
        for number, lengths in enumerate(batches):
            _run(engine, log, lengths, repeat * len(batches) + number, clock)
        if repeat:
            for entry in log.entries:
                times.setdefault(entry.load, []).append(entry.seconds)
    return list(times), [float(np.median(each)) for each in times.values()]


def _batches(engine: Engine) -> list[list[int]]:
    """Lengths of prompts that run together: one alone, many alike, and one that comes to many."""
    room = min(_cache_tokens(engine) // 2, _MOST_TOKENS)
    longest = min(engine.max_model_len, room) - _STEPS - 1
    prompts = [length for length in _PROMPTS if length <= longest] or [max(1, longest)]
    rows = [count for count in _ROWS if count <= _resolved(engine.config.scheduler.max_num_seqs)]
    contexts = [length for length in _CONTEXTS if length <= longest]
    found = [[length] for length in prompts]
    found += [[length] * count for count in rows for length in contexts if (length + _STEPS) * count <= room]
    return found + [[16] * count + [length] for count in rows[1:-1:2] for length in prompts if length >= 64]


def _run(engine: Engine, log: StepLog, lengths: Sequence[int], seed: int, clock: Callable[[], float]) -> None:
    """Compute the prompts and some tokens of each; of several the last comes when the others decode."""
    rng = np.random.default_rng(seed)
    core = engine.core
    params = SamplingParams(temperature=0.0, max_tokens=_STEPS, ignore_eos=True)
    requests = [
        EngineRequest(
            request_id=f"{seed}-{number}",
            prompt_token_ids=rng.integers(0, engine.vocab_size, size=length).tolist(),
            params=params,
            max_tokens=_STEPS,
            arrival_time=0.0,
        )
        for number, length in enumerate(lengths)
    ]
    late = requests[-1:] if len(set(lengths)) > 1 else []
    for request in requests[: len(requests) - len(late)]:
        core.add_request(request)
    while core.stats().waiting:
        step_engine(core, log, clock)
    for request in late:
        core.add_request(request)
    while core.has_unfinished:
        step_engine(core, log, clock)


def _cache_tokens(engine: Engine) -> int:
    cache = engine.config.cache
    return (_resolved(cache.num_blocks) - 1) * _resolved(cache.block_size)


def _resolved(value: int | str) -> int:
    assert isinstance(value, int), "an engine's configuration is resolved"
    return value
