"""`ScriptedEngine`: an engine for tests of what stands before one. It checks, streams and aborts like an `AsyncLLM`,
with bytes as tokens and a script in the place of the model.
"""

from __future__ import annotations

import asyncio
import itertools
from array import array
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcore.config import EngineConfig, load_config
from vcore.config.models import PluginsConfig
from vcore.engine.conversations import Conversation, render_conversation
from vcore.engine.input_processor import InputProcessor
from vcore.engine.output_processor import OutputProcessor
from vcore.engine.pooling import NO_POOLING, ModelPooling, embedding_output
from vcore.engine.processor_options import ProcessorOptions
from vcore.engine.prompts import Prompt, TokensPrompt
from vcore.engine.request import EngineRequest, FinishReason
from vcore.engine.step_output import Finished, Started, StepOutput
from vcore.errors import EngineError
from vcore.interfaces.step import TokenLogprobs
from vcore.kv_cache.block_map import BlockMap
from vcore.outputs import EmbeddingOutput, RequestOutput
from vcore.plugins import discover
from vcore.plugins.resolved import ResolvedSet
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams
from vcore.scheduler.settings import SchedulerStats
from vcore.tokenizer import Tokenizer

if TYPE_CHECKING:
    from vcore.engine.records import EngineListener
    from vcore.plugins.catalog import Catalog

__all__ = ["ScriptedEngine", "ScriptedStatus", "byte_tokenizer"]

EOS = 256
_IDLE = {
    "running": 0,
    "waiting": 0,
    "used_blocks": 0,
    "free_blocks": 3,
    "cached_blocks": 0,
    "prefix_query_tokens": 0,
    "prefix_hit_tokens": 0,
    "preemptions": 0,
}
_CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@cache
def byte_tokenizer(chat_template: str = _CHAT_TEMPLATE) -> Tokenizer:
    """Ids 0 to 255 are bytes, so that a character beyond ASCII is several tokens; 256 is ``<eos>``."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    backend = Backend(models.BPE({char: byte for byte, char in bytes_to_unicode().items()}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<eos>", special=True)])
    return Tokenizer(backend, {"eos_token": "<eos>"}, {"default": chat_template})


@cache
def _catalog() -> Catalog:
    return discover(PluginsConfig())


@dataclass(slots=True)
class ScriptedStatus:
    """What `health` tells; tests change it."""

    state: str = "ready"
    reason: str | None = None
    restarts: int = 0
    faults: tuple[str, ...] = ()
    failed_steps: int = 0


@dataclass
class ScriptedEngine:
    """Answers each sample with what `script` says, one token a step, then ``<eos>``."""

    script: Callable[[EngineRequest], str | Sequence[int]] = lambda request: "hello there"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Of the configuration."""
    max_model_len: int = 256
    chat_template: str = _CHAT_TEMPLATE
    status: ScriptedStatus = field(default_factory=ScriptedStatus)
    may_step: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, it holds every request before its next step."""
    failures: dict[int, BaseException | str | tuple[str, str]] = field(default_factory=dict)
    """By the number of a request's step: what is raised there; a text is a sample that ends with an error, and a
    field's name behind it makes it the request's."""
    num_cached_tokens: int = 2
    open_ids: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    """Ids of requests that were closed before their end."""
    served: list[EngineRequest] = field(default_factory=list)
    """Every sample that was asked for."""
    listeners: list[EngineListener] = field(default_factory=list)
    scheduler_stats: SchedulerStats = field(default_factory=lambda: SchedulerStats(**_IDLE))
    plugins: ResolvedSet = field(default_factory=lambda: ResolvedSet(()))
    num_steps: int = 0
    """Of all requests together."""
    profiling: bool = False
    vocab_size: int = 260
    eos_token_ids: tuple[int, ...] = (EOS,)
    pooling: ModelPooling = NO_POOLING
    """With a mode, `embed` answers."""

    def __post_init__(self) -> None:
        """Begin with steps allowed."""
        self.may_step.set()
        self._serial = itertools.count()
        self.config: EngineConfig = load_config(None, {"model.path": "scripted", **self.overrides})

    @property
    def catalog(self) -> Catalog:
        """What is installed."""
        return _catalog()

    @cached_property
    def _input_processor(self) -> InputProcessor:
        return InputProcessor(
            tokenizer=self.get_tokenizer(),
            vocab_size=self.vocab_size,
            max_model_len=self.max_model_len,
            eos_token_ids=self.eos_token_ids,
            check_processor=ProcessorOptions(self.catalog).check,
            pooling=self.pooling,
        )

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        request_id: str | None = None,
        mode: str = "cumulative",
    ) -> AsyncGenerator[RequestOutput, None]:
        """As `AsyncLLM.generate`."""
        name = request_id or f"request-{next(self._serial)}"
        processed = self._input_processor.process(prompt, params or SamplingParams(), request_id=name)
        running = {request.request_id: _Sample(request, self._tokens(request)) for request in processed.engine_requests}
        outputs = OutputProcessor(self.get_tokenizer(), lambda engine_id, _, __: _drop(running, engine_id))
        outputs.add(processed, stream=mode != "final", delta=mode == "delta")
        self.served += processed.engine_requests
        self.open_ids.append(name)
        try:
            for number in itertools.count():
                await self.may_step.wait()
                await asyncio.sleep(0)
                for output in outputs.process(self._step(number, running)):
                    yield output
                    if output.finished:
                        return
        finally:
            self.open_ids.remove(name)
            if outputs.num_requests:
                self.aborted.append(name)

    async def embed(
        self, prompt: Prompt, params: PoolingParams | None = None, *, request_id: str | None = None
    ) -> EmbeddingOutput:
        """As `AsyncLLM.embed`: the prompt's first token ids are its features, after its length."""
        name = request_id or f"request-{next(self._serial)}"
        processed = self._input_processor.process_embedding(prompt, params or PoolingParams(), request_id=name)
        outputs = OutputProcessor(self.get_tokenizer(), lambda *finish: None)
        outputs.add(processed)
        self.served += processed.engine_requests
        self.open_ids.append(name)
        try:
            await self.may_step.wait()
            await asyncio.sleep(0)
            [output] = outputs.process(self._pool(name, processed.prompt_token_ids))
            return embedding_output(output)
        finally:
            self.open_ids.remove(name)
            if outputs.num_requests:
                self.aborted.append(name)

    def _pool(self, name: str, token_ids: Sequence[int]) -> StepOutput:
        self.num_steps += 1
        failure = self.failures.get(0)
        if isinstance(failure, BaseException):
            raise failure
        output = StepOutput(started={name: Started(0.0, self.num_cached_tokens)})
        if failure is not None:
            output.finished[name] = Finished(FinishReason.ERROR, str(failure), 0)
            return output
        features = [len(token_ids), *token_ids, *[0] * self.pooling.size][: self.pooling.size]
        output.vectors[name] = array("f", features).tobytes()
        output.finished[name] = Finished(FinishReason.STOP, None, 0)
        return output

    def _tokens(self, request: EngineRequest) -> list[int]:
        answer = self.script(request)
        return [*(answer.encode() if isinstance(answer, str) else answer), EOS]

    def _step(self, number: int, running: dict[str, _Sample]) -> StepOutput:
        self.num_steps += 1
        output = StepOutput(time=float(number))
        failure = self.failures.get(number)
        if isinstance(failure, BaseException):
            raise failure
        for engine_id, sample in list(running.items()):
            if number == 0:
                output.started[engine_id] = Started(0.0, self.num_cached_tokens)
                if sample.request.params.prompt_logprobs is not None:
                    output.prompt_logprobs[engine_id] = list(map(_logprobs, sample.request.prompt_token_ids[1:]))
            if isinstance(failure, tuple):
                output.error_params[engine_id] = failure[1]
            if failure is not None:
                message = failure if isinstance(failure, str) else failure[0]
                output.finished[engine_id] = Finished(FinishReason.ERROR, message, 0)
            else:
                sample.step(output)
            if engine_id in output.finished:
                del running[engine_id]
        return output

    def health(self) -> ScriptedStatus:
        """What `status` says."""
        return self.status

    def num_unfinished(self) -> int:
        """How many requests are open."""
        return len(self.open_ids)

    def add_listener(self, listener: EngineListener) -> None:
        """Keeps it in `listeners`; tests tell it what they like."""
        self.listeners.append(listener)

    async def stats(self) -> SchedulerStats:
        """What `scheduler_stats` says."""
        return self.scheduler_stats

    def last_stats(self) -> SchedulerStats | None:
        """There was no step."""
        return None

    async def block_map(self) -> BlockMap:
        """Four blocks: the null block, a free one, one in use and a cached one."""
        return BlockMap(num_blocks=4, block_size=16, used=1, free=2, cached=1, states=bytes([0, 0, 1, 2]))

    def get_tokenizer(self) -> Tokenizer:
        """Bytes as tokens."""
        return byte_tokenizer(self.chat_template)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The bytes of `text`."""
        return self.get_tokenizer().encode(text, add_special_tokens)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of bytes."""
        return self.get_tokenizer().decode(token_ids, skip_special_tokens)

    def render_chat(self, conversation: Conversation, /, **template_options: Any) -> TokensPrompt:
        """By the chat template."""
        return render_conversation(conversation, self.get_tokenizer(), self.max_model_len, template_options)

    async def reset_prefix_cache(self) -> bool:
        """There is none."""
        return True

    async def start_profile(self, folder: str | Path | None = None) -> Path:
        """Remembers that a profile is being taken."""
        if self.profiling:
            raise EngineError("a profile is being taken already")
        self.profiling = True
        return Path(folder or "profile")

    async def stop_profile(self) -> Path:
        """Ends it."""
        if not self.profiling:
            raise EngineError("no profile is being taken")
        self.profiling = False
        return Path("profile")


@dataclass(slots=True)
class _Sample:
    request: EngineRequest
    tokens: list[int]
    num_given: int = 0

    def step(self, output: StepOutput) -> None:
        """Give the next token, and end where the engine would."""
        engine_id, params = self.request.request_id, self.request.params
        token = self.tokens[self.num_given] if self.num_given < len(self.tokens) else EOS
        self.num_given += 1
        output.request_ids.append(engine_id)
        output.token_ids.append(token)
        if params.logprobs is not None:
            output.logprobs[engine_id] = [_logprobs(token)]
        may_stop = self.num_given > params.min_tokens
        if may_stop and token in self.request.eos_token_ids:
            output.finished[engine_id] = Finished(FinishReason.STOP, None, 0)
        elif may_stop and token in params.stop_token_ids:
            output.finished[engine_id] = Finished(FinishReason.STOP, token, 0)
        elif self.num_given == self.request.max_tokens:
            output.finished[engine_id] = Finished(FinishReason.LENGTH, None, 0)


def _drop(running: dict[str, _Sample], engine_id: str) -> None:
    running.pop(engine_id, None)


def _logprobs(token: int) -> TokenLogprobs:
    """The token itself, then a likelier one, then the token again."""
    return TokenLogprobs([token, (token + 1) % EOS, token], [-0.5, -0.25, -0.5], [2, 1, 2])
