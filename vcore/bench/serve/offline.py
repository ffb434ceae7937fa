"""`measure_offline`: the same requests through `LLM.generate`, in a process of its own: what serving is measured by."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vcore.bench.serve.request import LoadRequest
from vcore.config import EngineConfig, load_config
from vcore.engine.remote.environment import engine_environment
from vcore.errors import EngineError

if TYPE_CHECKING:
    from vcore.engine.llm import LLM
    from vcore.engine.prompts import Prompt

__all__ = ["OfflineEngine", "measure_offline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineEngine:
    """What `LLM.generate` is to run with, for a comparison."""

    config: EngineConfig
    base_dir: Path | None
    temperature: float
    detokenize: bool
    """Whether text is made of the tokens, as the target does."""
    ignore_eos: bool = True
    is_chat: bool = False
    """Whether texts are messages of users, which the chat template makes prompts of."""


def measure_offline(
    engine: OfflineEngine,
    runs: Sequence[Sequence[LoadRequest]],
    *,
    warm_up: Sequence[LoadRequest] = (),
    max_concurrency: int | None = None,
) -> list[float]:
    """Output tokens a second of each run, all of its requests submitted at once.

    The engine goes through what the target went through, in the same order, so that neither is warmer than the other
    when a run begins, nor has more of its prompts cached.

    Args:
        engine: what to run with.
        runs: requests with prompts of ids, text or messages.
        warm_up: requests that go before them, and are not counted.
        max_concurrency: if given, the engine runs no more requests at a time, as the load generator did.

    Raises:
        VcoreError: the engine cannot be made, or refuses a request.
        EngineError: its process ended.
    """
    if max_concurrency is not None:
        own = engine.config.scheduler.max_num_seqs
        most = max_concurrency if own == "auto" else min(own, max_concurrency)
        engine = replace(engine, config=load_config(engine.config, {"scheduler.max_num_seqs": most}))
    context = multiprocessing.get_context("spawn")
    # As a served engine's process has them, and before a library that reads them is loaded.
    variables = engine_environment(os.environ)
    with ProcessPoolExecutor(1, context, initializer=_set_variables, initargs=(variables,)) as pool:
        try:
            return pool.submit(_rates, engine, [*runs], [*warm_up]).result()
        except BrokenProcessPool:
            raise EngineError("the offline engine's process ended before it had measured anything") from None


def _set_variables(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def _rates(engine: OfflineEngine, runs: list[Sequence[LoadRequest]], warm_up: list[LoadRequest]) -> list[float]:
    """In the child."""
    from vcore.engine.llm import LLM

    with LLM(config=engine.config, base_dir=engine.base_dir, progress=False) as llm:
        if warm_up:
            _rate(llm, warm_up, engine)
        return [_rate(llm, requests, engine) for requests in runs]


def _rate(llm: LLM, requests: Sequence[LoadRequest], engine: OfflineEngine) -> float:
    from vcore.sampling_params import SamplingParams

    all_params = [
        SamplingParams(
            max_tokens=one.num_output_tokens,
            temperature=engine.temperature,
            ignore_eos=engine.ignore_eos,
            detokenize=engine.detokenize,
        )
        for one in requests
    ]
    began = time.perf_counter()
    prompts = [_prompt(llm, request, is_chat=engine.is_chat) for request in requests]
    outputs = llm.generate(prompts, all_params, progress=False)
    elapsed = time.perf_counter() - began
    return sum(len(output.outputs[0].token_ids) for output in outputs) / elapsed


def _prompt(llm: LLM, request: LoadRequest, *, is_chat: bool) -> Prompt:
    if request.token_ids is not None:
        return request.token_ids
    if request.messages is not None or is_chat:
        return llm.render_chat(request.messages or [{"role": "user", "content": request.text}])
    return request.text or ""
