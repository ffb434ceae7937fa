"""`measure_offline`: the same requests through `LLM.generate`, in a process of its own: what serving is measured by."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcore.bench.serve.request import LoadRequest
from vcore.config import EngineConfig, load_config
from vcore.errors import EngineError

if TYPE_CHECKING:
    from vcore.engine.llm import LLM
    from vcore.engine.prompts import Prompt

__all__ = ["measure_offline"]

_WARM_UP_TOKENS = 8


def measure_offline(
    config: EngineConfig,
    runs: Sequence[Sequence[LoadRequest]],
    *,
    temperature: float,
    detokenize: bool,
    max_concurrency: int | None = None,
    base_dir: Path | None = None,
) -> list[float]:
    """Output tokens a second of each run, all of its requests submitted at once, after a short one to warm up.

    Args:
        config: of the engine.
        runs: requests with prompts of ids or text.
        temperature: of every request.
        detokenize: whether text is made of the tokens, as a server does.
        max_concurrency: if given, the engine runs no more requests at a time, as the load generator did.
        base_dir: what relative paths in `config` are relative to.

    Raises:
        VcoreError: the engine cannot be made, or refuses a request.
        EngineError: its process ended.
    """
    if max_concurrency is not None:
        config = load_config(config, {"scheduler.max_num_seqs": max_concurrency})
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(
                _rates, config, [*runs], base_dir, temperature=temperature, detokenize=detokenize
            ).result()
        except BrokenProcessPool:
            raise EngineError("the offline engine's process ended before it had measured anything") from None


def _rates(
    config: EngineConfig, runs: list[Sequence[LoadRequest]], base_dir: Path | None, **params: Any
) -> list[float]:
    """In the child."""
    from vcore.engine.llm import LLM

    with LLM(config=config, base_dir=base_dir, progress=False) as llm:
        _rate(
            llm,
            [replace(one, num_output_tokens=min(one.num_output_tokens, _WARM_UP_TOKENS)) for one in runs[0]],
            params,
        )
        return [_rate(llm, requests, params) for requests in runs]


def _rate(llm: LLM, requests: Sequence[LoadRequest], params: dict[str, Any]) -> float:
    from vcore.sampling_params import SamplingParams

    prompts = [_prompt(llm, request) for request in requests]
    all_params = [SamplingParams(max_tokens=one.num_output_tokens, ignore_eos=True, **params) for one in requests]
    began = time.perf_counter()
    outputs = llm.generate(prompts, all_params, progress=False)
    elapsed = time.perf_counter() - began
    return sum(len(output.outputs[0].token_ids) for output in outputs) / elapsed


def _prompt(llm: LLM, request: LoadRequest) -> Prompt:
    if request.messages is not None:
        return llm.render_chat(request.messages)
    return request.text or "" if request.token_ids is None else request.token_ids
