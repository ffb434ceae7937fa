"""`OfflineProcess`: requests through `LLM.generate`, in a process of its own: what serving is measured by."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcore.bench.serve.request import LoadRequest
from vcore.config import EngineConfig, load_config
from vcore.engine.remote.environment import engine_environment
from vcore.errors import EngineError
from vcore.sampling_params import SamplingParams

if TYPE_CHECKING:
    from types import TracebackType

    from vcore.engine.llm import LLM
    from vcore.engine.prompts import Prompt

__all__ = ["OfflineEngine", "OfflineProcess"]

_SECONDS_TO_END = 10.0


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
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """As `offline_sampling` gives it: over all else that requests ask for; None takes out what they ask for."""

    def params(self, request: LoadRequest) -> SamplingParams:
        """What `request` asks for, as a request to the target does."""
        asked: dict[str, Any] = {
            "max_tokens": request.num_output_tokens,
            "temperature": self.temperature,
            "ignore_eos": self.ignore_eos,
            "priority": request.priority,
            **self.sampling,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        if self.is_chat:  # whose answers have no length by default
            given.setdefault("max_tokens", None)
        return SamplingParams(detokenize=self.detokenize, **given)

    def limited(self, max_concurrency: int | None) -> OfflineEngine:
        """One that runs no more requests at a time, as a load generator does; the same for None."""
        if max_concurrency is None:
            return self
        own = self.config.scheduler.max_num_seqs
        most = max_concurrency if own == "auto" else min(own, max_concurrency)
        return replace(self, config=load_config(self.config, {"scheduler.max_num_seqs": most}))


class OfflineProcess:
    """A context manager. The engine is made when its first requests come.

    It has to go through what the target goes through, in the same order, so that neither is warmer than the other when
    a run begins, nor has more of its prompts cached.
    """

    def __init__(self, engine: OfflineEngine) -> None:
        """Args:
        engine: what to run with.
        """
        self._engine = engine

    def __enter__(self) -> OfflineProcess:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # As a served engine's process has them, and before a library that reads them is loaded.
        variables = engine_environment(os.environ)
        self._process = context.Process(target=_answer, args=(theirs, self._engine, variables), daemon=True)
        self._process.start()
        theirs.close()
        self.is_on_cpu: bool = self._receive()
        """Whether it computes on the CPU, where there is room for it beside the target."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()  # which ends it, unless it computes
        self._process.join(0.0 if kind else _SECONDS_TO_END)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()

    def rate(self, requests: Sequence[LoadRequest]) -> float:
        """Output tokens a second of `requests`, with prompts of ids, text or messages, all submitted at once.

        Raises:
            VcoreError: the engine cannot be made, or refuses a request.
            EngineError: its process ended.
        """
        with contextlib.suppress(OSError):  # the answer says why
            self._connection.send([*requests])
        rate: float = self._receive()
        return rate

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise EngineError("the offline engine's process ended before it had answered") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _answer(connection: Connection, engine: OfflineEngine, variables: dict[str, str]) -> None:
    """In the child: whether it is on the CPU, then the rate of each list of requests, or one error at last."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    os.environ.update(variables)
    try:
        connection.send(_is_on_cpu(engine.config.runtime.device))
        requests = connection.recv()
        from vcore.engine.llm import LLM

        with LLM(config=engine.config, base_dir=engine.base_dir, progress=False) as llm:
            while True:
                connection.send(_rate(llm, requests, engine))
                requests = connection.recv()
    except EOFError:
        return
    except Exception as error:
        connection.send(error)


def _is_on_cpu(device: str) -> bool:
    if device != "auto":
        return device.startswith("cpu")
    import torch

    return not torch.cuda.is_available()


def _rate(llm: LLM, requests: Sequence[LoadRequest], engine: OfflineEngine) -> float:
    all_params = [engine.params(one) for one in requests]
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
