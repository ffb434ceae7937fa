"""``vcore bench overhead``: what a step costs when the model costs nothing."""

from __future__ import annotations

import cProfile
import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vcore.bench.null_model import NULL_MODEL_SPEC, VOCAB_SIZE, write_null_model
from vcore.bench.policy_stopwatch import PolicyStopwatch
from vcore.bench.waiting_load import MAX_OUTPUT_LEN, MAX_PROMPT_LEN, WaitingLoad
from vcore.config import load_config
from vcore.engine.build import Engine, build_engine
from vcore.engine.core import EngineCore
from vcore.engine.request import EngineRequest
from vcore.sampling_params import SamplingParams

__all__ = ["measure_overhead", "null_engine"]

BLOCK_SIZE = 16
PROMPT_LEN = 32
FILL_LEN = 64 * BLOCK_SIZE


def measure_overhead(
    *,
    num_requests: int = 256,
    cached_blocks: int = 1000,
    steps: int = 300,
    waiting: int = 0,
    overrides: dict[str, Any] | None = None,
    profile: Path | None = None,
) -> dict[str, Any]:
    """Time whole engine steps (schedule, build, sample, stop check, update) over a model that computes nothing.

    Args:
        num_requests: requests that decode greedily, all in every step.
        cached_blocks: blocks of finished requests that fill the prefix cache meanwhile.
        steps: counted steps, after 50 that are not.
        waiting: requests that wait meanwhile; then those that run end after some steps, and arrivals take their places
            (`WaitingLoad`), so that the scheduling policy has work to do in each step.
        overrides: configuration keys, such as ``{"cache.eviction": "fifo"}``.
        profile: where to write a cProfile of the counted steps, which slows them down.

    Returns:
        ``num_requests``, ``cached_blocks``, and ``step_ms`` (the median), ``mean_ms``, ``p99_ms``; ``waiting``, and, if
        that is not 0, ``policy_ms``: mean processor time a step in the scheduling policy's methods.
    """
    overrides = overrides or {}
    if waiting:
        times, cached, policy_ms = _time_waiting(num_requests, cached_blocks, steps, waiting, overrides, profile)
    else:
        times, cached = _time_decoding(num_requests, cached_blocks, steps, overrides, profile)
        policy_ms = None
    milliseconds = np.asarray(times) * 1e3
    return {
        "num_requests": num_requests,
        "cached_blocks": cached,
        "waiting": waiting,
        "steps": steps,
        "step_ms": float(np.median(milliseconds)),
        "mean_ms": float(milliseconds.mean()),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "policy_ms": policy_ms,
    }


def _time_decoding(
    num_requests: int, cached_blocks: int, steps: int, overrides: dict[str, Any], profile: Path | None
) -> tuple[list[float], int]:
    """Seconds of each step, and blocks in the cache."""
    with null_engine(num_requests, cached_blocks, steps + 50, overrides) as engine:
        core = engine.core
        _fill_cache(core, cached_blocks)
        _start_decoding(core, num_requests, steps + 50)
        for _ in range(49):
            core.step()
        times = []
        with _quiet(profile):
            for _ in range(steps):
                began = time.perf_counter()
                output = core.step()
                times.append(time.perf_counter() - began)
                assert len(output.token_ids) == num_requests
        return times, core.stats().cached_blocks


def _time_waiting(
    num_requests: int, cached_blocks: int, steps: int, waiting: int, overrides: dict[str, Any], profile: Path | None
) -> tuple[list[float], int, float]:
    """Seconds of each step, blocks in the cache, and milliseconds a step in the scheduling policy."""
    num_tokens = MAX_PROMPT_LEN - PROMPT_LEN + MAX_OUTPUT_LEN
    with null_engine(num_requests, cached_blocks, num_tokens, overrides) as engine:
        core = engine.core
        load = WaitingLoad(core, VOCAB_SIZE)
        _fill_cache(core, cached_blocks)
        load.fill(num_requests + waiting)
        load.run(MAX_OUTPUT_LEN)  # until requests end in every step
        load.times.clear()
        # Nothing but this asks an engine for its policy, so there is no public way.
        stopwatch = PolicyStopwatch(core._scheduler._policy._policy)
        with _quiet(profile):
            load.run(steps)
        return load.times, core.stats().cached_blocks, stopwatch.seconds / steps * 1e3


@contextmanager
def _quiet(profile: Path | None) -> Iterator[None]:
    """Without collections of garbage that was there before; profiled if `profile` is given."""
    gc.collect()
    gc.freeze()
    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    try:
        yield
    finally:
        if profiler and profile:
            profiler.disable()
            profiler.dump_stats(str(profile))
        gc.unfreeze()


@contextmanager
def null_engine(num_requests: int, cached_blocks: int, num_tokens: int, overrides: dict[str, Any]) -> Iterator[Engine]:
    """An engine over `NullModel` with room for the requests and for the cached blocks.

    Args:
        num_requests: requests at a time.
        cached_blocks: blocks beside those that the requests need.
        num_tokens: tokens that each request generates.
        overrides: configuration keys that win.
    """
    blocks_each = -(-(PROMPT_LEN + num_tokens) // BLOCK_SIZE) + 1
    max_model_len = max(PROMPT_LEN + num_tokens, FILL_LEN + 1) + 1
    with tempfile.TemporaryDirectory(prefix="vcore-null-") as folder:
        write_null_model(Path(folder), max_model_len)
        tree = {
            "model": {"path": folder, "load_format": "dummy", "skip_tokenizer": True},
            "cache": {
                "block_size": BLOCK_SIZE,
                "num_blocks": num_requests * blocks_each + cached_blocks + 65,
            },
            "scheduler": {"max_num_seqs": num_requests, "max_num_batched_tokens": max(8192, num_requests)},
            "runtime": {"device": "cpu"},
        }
        engine = build_engine(load_config(tree, overrides), plugins=[NULL_MODEL_SPEC])
        try:
            yield engine
        finally:
            engine.core.shutdown()


def _fill_cache(core: EngineCore, cached_blocks: int) -> None:
    """Run short-lived requests with prompts of their own until about `cached_blocks` blocks are cached."""
    rng = np.random.default_rng(0)
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    for index in range(-(-cached_blocks * BLOCK_SIZE // FILL_LEN)):
        prompt = rng.integers(0, VOCAB_SIZE, size=FILL_LEN).tolist()
        core.add_request(_request(f"fill-{index}", prompt, params, 1))
    while core.has_unfinished:
        core.step()


def _start_decoding(core: EngineCore, num_requests: int, num_tokens: int) -> None:
    """Add the counted requests and compute their prompts."""
    rng = np.random.default_rng(1)
    params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
    for index in range(num_requests):
        # Lengths differ, as in life, so that requests do not all fill a block in the same step.
        prompt = rng.integers(0, VOCAB_SIZE, size=PROMPT_LEN - index % BLOCK_SIZE).tolist()
        core.add_request(_request(f"decode-{index}", prompt, params, num_tokens))
    while core.stats().waiting:
        core.step()


def _request(name: str, prompt: list[int], params: SamplingParams, max_tokens: int) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt_token_ids=prompt,
        params=params,
        max_tokens=max_tokens,
        arrival_time=time.monotonic(),
    )
