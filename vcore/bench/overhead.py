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
    overrides: dict[str, Any] | None = None,
    profile: Path | None = None,
) -> dict[str, Any]:
    """Time whole engine steps (schedule, build, sample, stop check, update) over a model that computes nothing.

    Args:
        num_requests: requests that decode greedily, all in every step.
        cached_blocks: blocks of finished requests that fill the prefix cache meanwhile.
        steps: counted steps, after 50 that are not.
        overrides: configuration keys, such as ``{"cache.eviction": "fifo"}``.
        profile: where to write a cProfile of the counted steps, which slows them down.

    Returns:
        ``num_requests``, ``cached_blocks``, and ``step_ms`` (the median), ``mean_ms``, ``p99_ms``.
    """
    with null_engine(num_requests, cached_blocks, steps + 50, overrides or {}) as engine:
        core = engine.core
        _fill_cache(core, cached_blocks)
        _start_decoding(core, num_requests, steps + 50)
        for _ in range(49):
            core.step()
        gc.collect()
        gc.freeze()
        profiler = cProfile.Profile() if profile else None
        if profiler:
            profiler.enable()
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            output = core.step()
            times.append(time.perf_counter() - began)
            assert len(output.token_ids) == num_requests
        if profiler and profile:
            profiler.disable()
            profiler.dump_stats(str(profile))
        gc.unfreeze()
        stats = core.stats()
    milliseconds = np.asarray(times) * 1e3
    return {
        "num_requests": num_requests,
        "cached_blocks": stats.cached_blocks,
        "steps": steps,
        "step_ms": float(np.median(milliseconds)),
        "mean_ms": float(milliseconds.mean()),
        "p99_ms": float(np.percentile(milliseconds, 99)),
    }


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
