"""``vcore bench latency``: one batch again and again; how long until the first token, and between tokens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from vcore.bench.percentiles import percentiles
from vcore.config import EngineConfig
from vcore.engine.llm import LLM
from vcore.sampling_params import SamplingParams

__all__ = ["measure_latency"]


def measure_latency(
    config: EngineConfig,
    *,
    batch_size: int = 1,
    input_len: int = 128,
    output_len: int = 128,
    runs: int = 5,
    base_dir: Path | None = None,
) -> dict[str, Any]:
    """Time batches of `batch_size` prompts of random ids, greedy, EOS ignored; one warm-up batch is not counted.

    Returns:
        ``e2e_s``, ``ttft_s`` and ``itl_s``, each with ``p50``, ``p90``, ``p99`` and ``mean`` (seconds), and
        ``decode_tokens_per_s`` of one stream, beside what was asked for.
    """
    rng = np.random.default_rng(0)
    params = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True, detokenize=False)
    e2e: list[float] = []
    ttft: list[float] = []
    itl: list[float] = []
    with LLM(config=config, base_dir=base_dir) as llm:
        for index in range(runs + 1):
            prompts = rng.integers(0, llm.vocab_size, size=(batch_size, input_len)).tolist()
            began = time.perf_counter()
            outputs = llm.generate(prompts, params, use_tqdm=False)
            if index == 0:
                continue
            e2e.append(time.perf_counter() - began)
            for output in outputs:
                assert output.metrics is not None
                assert output.metrics.ttft is not None
                ttft.append(output.metrics.ttft)
                itl.extend(output.metrics.inter_token_latencies)
    return {
        "batch_size": batch_size,
        "input_len": input_len,
        "output_len": output_len,
        "num_runs": runs,
        "moe_routing": config.model.moe_routing,
        "e2e_s": percentiles(e2e),
        "ttft_s": percentiles(ttft),
        "itl_s": percentiles(itl),
        "decode_tokens_per_s": 1.0 / float(np.mean(itl)) if itl else None,
    }
