"""`InProcessTarget`: the engine through `AsyncLLM`, with nothing of HTTP between."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.target import TargetError, TargetInfo
from vcore.config import EngineConfig
from vcore.engine.prompts import Prompt
from vcore.errors import VcoreError
from vcore.outputs import RequestOutput
from vcore.sampling_params import SamplingParams

__all__ = ["AsyncEngine", "InProcessTarget"]

_FAILED = ("error", "abort")
"""Finish reasons that are failures."""


class AsyncEngine(Protocol):
    """What is used of `AsyncLLM`."""

    async def start(self) -> None:
        """Compose it."""
        ...

    async def close(self) -> None:
        """Free it."""
        ...

    @property
    def config(self) -> EngineConfig:
        """Resolved."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        ...

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and output together."""
        ...

    def render_chat(self, conversation: Any, /, **template_options: Any) -> Any:
        """A prompt of a conversation."""
        ...

    def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, *, mode: Literal["delta"]
    ) -> AsyncGenerator[RequestOutput]:
        """What is new of a request, as it comes."""
        ...


class InProcessTarget:
    """Requests go straight into the engine; ids come back, and no text is made of them."""

    def __init__(self, engine: AsyncEngine, *, temperature: float = 0.6) -> None:
        """Args:
        engine: not started; it is started and closed here.
        temperature: of every request.
        """
        self._engine = engine
        self._temperature = temperature

    @classmethod
    def of_config(
        cls, config: EngineConfig, *, base_dir: Path | None, temperature: float, engine_thread: bool = False
    ) -> Self:
        """Over an engine of this configuration.

        Args:
            config: of the engine.
            base_dir: what its relative paths are relative to.
            temperature: of every request.
            engine_thread: whether the engine is to be a thread of this process; otherwise it has one of its own.
        """
        from vcore.engine.async_llm import AsyncLLM

        engine = AsyncLLM(config=config, base_dir=base_dir, in_process=engine_thread)
        return cls(engine, temperature=temperature)

    async def __aenter__(self) -> Self:
        """Start the engine.

        Raises:
            VcoreError: it cannot be started.
        """
        await self._engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the engine."""
        await self._engine.close()

    def info(self) -> TargetInfo:
        """What the engine says of itself."""
        engine = self._engine
        return TargetInfo(
            name="in-process",
            model=str(engine.config.model.path),
            vocab_size=engine.vocab_size,
            max_model_len=engine.max_model_len,
        )

    async def run(self, request: LoadRequest, record: RequestRecord) -> None:
        """Generate for one request.

        Raises:
            TargetError: of the kind of the engine's error, or of the finish reason of a request that failed.
        """
        params = SamplingParams(
            temperature=self._temperature,
            max_tokens=request.num_output_tokens,
            ignore_eos=True,
            detokenize=False,
            priority=request.priority,
        )
        try:
            last = await self._consume(self._prompt(request), params, record)
        except VcoreError as error:
            raise TargetError(type(error).__name__, str(error)) from None
        finally:
            record.num_output_tokens = record.num_counted
        if last is None:
            return
        completion = last.outputs[0]
        record.finish_reason = completion.finish_reason
        record.num_cached_tokens = last.num_cached_tokens
        if last.metrics is not None:
            record.queue_s = last.metrics.queue_time
        if completion.finish_reason in _FAILED:
            raise TargetError(str(completion.finish_reason), str(completion.stop_reason))
        if not last.finished:
            raise TargetError("cut", "the engine's stream ended before the request")

    async def _consume(self, prompt: Prompt, params: SamplingParams, record: RequestRecord) -> RequestOutput | None:
        output = None
        async for output in self._engine.generate(prompt, params, mode="delta"):
            count = len(output.outputs[0].token_ids)
            if count:
                record.add(time.monotonic(), count)
            if output.prompt_token_ids:
                record.num_prompt_tokens = len(output.prompt_token_ids)
        return output

    def _prompt(self, request: LoadRequest) -> Prompt:
        if request.token_ids is not None:
            return {"prompt_token_ids": request.token_ids}
        if request.messages is not None:
            rendered: Prompt = self._engine.render_chat(request.messages)
            return rendered
        return request.text or ""
