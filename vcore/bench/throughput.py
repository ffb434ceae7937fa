"""``vcore bench throughput``: tokens a second of a whole workload, submitted at once."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vcore.bench.workloads import WorkloadRequest, make_workload
from vcore.config import EngineConfig
from vcore.engine.llm import LLM
from vcore.sampling_params import SamplingParams

__all__ = ["ThroughputRun", "measure_throughput"]


@dataclass(frozen=True, slots=True)
class ThroughputRun:
    """One counted run."""

    elapsed_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    mean_ttft_s: float
    output_tokens_per_s: float
    input_tokens_per_s: float


def measure_throughput(
    config: EngineConfig,
    *,
    workload: str,
    num_requests: int | None = None,
    runs: int = 2,
    temperature: float = 0.6,
    base_dir: Path | None = None,
) -> dict[str, Any]:
    """Run `workload` once to warm up and `runs` times to count, each with fresh token ids.

    EOS is ignored, so that every request gives the tokens that it was asked for.

    Returns:
        The better run's ``output_tokens_per_s``, ``input_tokens_per_s``, ``elapsed_s`` (seconds), with
        ``num_requests``, ``moe_routing``, ``startup_s`` and all ``runs``.
    """
    began = time.perf_counter()
    with LLM(config=config, base_dir=base_dir) as llm:
        startup_s = time.perf_counter() - began
        results = []
        for index in range(runs + 1):
            requests = make_workload(workload, vocab_size=llm.vocab_size, seed=index, num_requests=num_requests)
            if index == 0:
                _run(llm, _shortened(requests), temperature)
            else:
                results.append(_run(llm, requests, temperature))
    best = max(results, key=lambda run: run.output_tokens_per_s)
    return {
        "workload": workload,
        "num_requests": len(requests),
        "moe_routing": config.model.moe_routing,
        "output_tokens_per_s": best.output_tokens_per_s,
        "input_tokens_per_s": best.input_tokens_per_s,
        "elapsed_s": best.elapsed_s,
        "startup_s": startup_s,
        "runs": [asdict(run) for run in results],
    }


def _shortened(requests: list[WorkloadRequest]) -> list[WorkloadRequest]:
    """The warm-up: the same batch, but few tokens of output."""
    return [WorkloadRequest(request.prompt_token_ids, min(request.num_output_tokens, 8)) for request in requests]


def _run(llm: LLM, requests: list[WorkloadRequest], temperature: float) -> ThroughputRun:
    prompts = [request.prompt_token_ids for request in requests]
    params = [
        SamplingParams(temperature=temperature, max_tokens=request.num_output_tokens, ignore_eos=True, detokenize=False)
        for request in requests
    ]
    began = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    elapsed = time.perf_counter() - began
    num_input = sum(map(len, prompts))
    num_output = sum(len(output.outputs[0].token_ids) for output in outputs)
    ttfts = [output.metrics.ttft for output in outputs if output.metrics and output.metrics.ttft is not None]
    return ThroughputRun(
        elapsed_s=elapsed,
        input_tokens=num_input,
        output_tokens=num_output,
        cached_tokens=sum(output.num_cached_tokens for output in outputs),
        mean_ttft_s=sum(ttfts) / len(ttfts),
        output_tokens_per_s=num_output / elapsed,
        input_tokens_per_s=num_input / elapsed,
    )
