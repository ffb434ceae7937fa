"""`AsyncLLM`: the engine for servers: behind asyncio, in a process of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args

from vcore.config import EngineConfig
from vcore.engine.facade import Facade, config_of
from vcore.engine.param_checks import require_tokenizer
from vcore.engine.pooling import embedding_output
from vcore.engine.prompts import Prompt
from vcore.engine.records import EngineListener, EngineState, EngineStatus, RequestRecord, StepRecord
from vcore.engine.remote.composition import Composition
from vcore.engine.remote.open_requests import OpenRequest, OutputMode
from vcore.engine.remote.restarts import RestartPolicy
from vcore.engine.remote.session import EngineSession
from vcore.errors import RequestError
from vcore.kv_cache.block_map import BlockMap
from vcore.outputs import EmbeddingOutput, RequestOutput
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams
from vcore.scheduler.settings import SchedulerStats

if TYPE_CHECKING:
    from vcore.plugins.catalog import Catalog
    from vcore.plugins.resolved import ResolvedSet
    from vcore.tokenizer import Tokenizer

__all__ = [
    "AsyncLLM",
    "BlockMap",
    "EngineListener",
    "EngineState",
    "EngineStatus",
    "OutputMode",
    "RequestRecord",
    "RestartPolicy",
    "StepRecord",
]

_SHORT_TEXT = 4000
"""Characters that are tokenised in a millisecond or two; longer texts go to a thread."""

_NUM_THREADS = 2


class AsyncLLM(Facade):
    """A model, ready to generate for many at once.

        async with AsyncLLM(model="smollm2-135m") as llm:
            async for output in llm.generate("The capital of France is", mode="delta"):
                print(output.outputs[0].text, end="")

    The engine runs in a process of its own, which ends with this one. Prompts are tokenised, and texts made of
    tokens, here. If the engine dies, open requests fail with `EngineDeadError` and it is started again.

    An object belongs to the event loop that `start` runs in. All methods are to be called there, but for `encode`,
    `decode` and `render_chat`, which may be called in any thread.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        config: EngineConfig | Mapping[str, Any] | str | Path | None = None,
        plugins: Sequence[object] = (),
        base_dir: Path | None = None,
        in_process: bool = False,
        restart: RestartPolicy | None = None,
        **overrides: Any,
    ) -> None:
        """Read the configuration; nothing is started.

        Args:
            model: as for `LLM`.
            config: as for `LLM`.
            plugins: plugin objects, which only an engine in this process can have.
            base_dir: as for `LLM`.
            in_process: run the engine in a thread of this process, for a debugger, say.
            restart: what happens when the engine has died; None for `RestartPolicy()`.
            overrides: as for `LLM`.

        Raises:
            ConfigError: the configuration is wrong, or cannot be passed to another process.
        """
        tree = config_of("AsyncLLM", model, config, overrides)
        composition = Composition(tree, plugins=plugins, base_dir=base_dir, in_process=in_process)
        self._session = EngineSession(composition, restart or RestartPolicy())
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="vcore-tokenize")

    # Its life

    async def start(self) -> None:
        """Start the engine and wait until the model is loaded. Cancelled or failed, nothing is left behind.

        Raises:
            ConfigError, PluginError, ModelError, CapacityError: as making an `LLM`.
            EngineDeadError: the engine's process ended without a word; the message has its last lines.
        """
        await self._session.supervisor.start()

    async def close(self) -> None:
        """End the engine. Open requests fail with `EngineDeadError`. Harmless when called twice."""
        self._threads.shutdown(wait=False)
        await self._session.supervisor.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def health(self) -> EngineStatus:
        """How the engine is."""
        return self._session.supervisor.status

    def add_listener(self, listener: EngineListener) -> None:
        """Tell `listener` from now on of steps, of requests that end, and of changes of the engine's state."""
        self._session.listeners.add(listener)

    # Generating

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        request_id: str | None = None,
        mode: OutputMode = "cumulative",
    ) -> AsyncGenerator[RequestOutput, None]:
        """Generate for one prompt.

        The prompt is checked, and enters the engine, when the first output is asked for. Closing the generator, or
        cancelling the task that waits for an output, aborts the request at once and frees its blocks. Who asks
        rarely misses nothing: an output has all that came since the one before.

        Args:
            prompt: as for `LLM.generate`, one.
            params: None for ``SamplingParams()``.
            request_id: unique among open requests; None for one that is made up.
            mode: ``cumulative``: outputs hold everything so far. ``delta``: what is new: `outputs` has the samples
                that have something new, and of each the new text, tokens and log probabilities; `metrics` come with
                the last output. ``final``: one output, at the end.

        Yields:
            Outputs, the last of which is `finished`. A request that fails while it runs ends with the finish reason
            ``error``, and the message as stop reason.

        Raises:
            RequestError: the prompt or the parameters are wrong, or the engine refuses the request.
            EngineDeadError: the engine is not ready, or dies while the request runs; the message has the cause.
        """
        request = await self._enter(prompt, _checked(params, SamplingParams), request_id, mode)
        try:
            while True:
                output = await request.next()
                yield output
                if output.finished:
                    return
        finally:
            request.drop()

    async def embed(
        self, prompt: Prompt, params: PoolingParams | None = None, *, request_id: str | None = None
    ) -> EmbeddingOutput:
        """Embed one prompt. Cancelling the task that waits aborts the request at once and frees its blocks.

        Args:
            prompt: as for `LLM.embed`, one.
            params: None for ``PoolingParams()``.
            request_id: unique among open requests; None for one that is made up.

        Returns:
            The embedding; for a request that fails while it runs, none, and the reason.

        Raises:
            RequestError: the model makes no embeddings, the prompt or the parameters are wrong, or the engine refuses
                the request.
            EngineDeadError: as for `generate`.
        """
        request = await self._enter(prompt, _checked(params, PoolingParams), request_id, "final")
        try:
            return embedding_output(await request.next())
        finally:
            request.drop()

    async def abort(self, request_id: str) -> None:
        """End a request; who waits for it gets what there is, with the finish reason ``abort``. Unknown: nothing."""
        self._session.abort(request_id)

    def num_unfinished(self) -> int:
        """How many requests are open."""
        return self._session.num_unfinished

    async def _enter(
        self, prompt: Prompt, params: SamplingParams | PoolingParams, request_id: str | None, mode: OutputMode
    ) -> OpenRequest:
        """Check a request and send it to the engine."""
        if mode not in (modes := get_args(OutputMode)):
            raise RequestError(f"mode must be one of {', '.join(modes)}, got {mode!r}", param="mode")
        self._session.supervisor.require_ready()
        request_id = request_id or f"request-{uuid.uuid4().hex}"
        process = partial(self._session.process, prompt, params, request_id=request_id)
        if _takes_long(prompt, params):
            processed = await asyncio.get_running_loop().run_in_executor(self._threads, process)
        else:
            processed = process()
        return self._session.requests.add(processed, mode)

    # The rest of the engine

    async def stats(self) -> SchedulerStats:
        """Counts of requests, blocks and prefix hits, as of now.

        Raises:
            EngineDeadError: the engine is not ready, or dies meanwhile; so do the questions below.
        """
        reply = await self._session.ask("stats")
        assert reply.stats is not None
        return reply.stats

    def last_stats(self) -> SchedulerStats | None:
        """The counts that came with the last step; None before the first step."""
        return self._session.last_stats

    async def block_map(self) -> BlockMap:
        """What each block of the cache is used for, as of now."""
        reply = await self._session.ask("block_map")
        assert reply.block_map is not None
        return reply.block_map

    async def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; whether that was possible."""
        return (await self._session.ask("reset_prefix_cache")).done

    async def start_profile(self, folder: str | Path | None = None) -> Path:
        """Start torch's profiler in the engine; as `LLM.start_profile`, also in what it returns and raises."""
        return await self._session.profile.start(folder)

    async def stop_profile(self) -> Path:
        """Stop it and write the traces; as `LLM.stop_profile`, also in what it returns and raises."""
        return await self._session.profile.stop()

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            RequestError: the engine was made without one.
            EngineDeadError: the engine was never ready; so do the questions below.
        """
        return require_tokenizer(self._session.facts.tokenizer)

    @property
    def config(self) -> EngineConfig:
        """The configuration, with every ``auto`` resolved."""
        return self._session.facts.config

    @property
    def vocab_size(self) -> int:
        """How many rows the model's embedding has; token ids are below it."""
        return self._session.facts.vocab_size

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and output together."""
        return self._session.facts.max_model_len

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The model's ends of sequence."""
        return self._session.facts.eos_token_ids

    @property
    def catalog(self) -> Catalog:
        """The plugins that this process finds; the engine's finds the same."""
        return self._session.facts.catalog

    @property
    def plugins(self) -> ResolvedSet:
        """What the engine is composed of."""
        return self._session.facts.plugins


P = TypeVar("P", SamplingParams, PoolingParams)


def _checked(params: P | None, kind: type[P]) -> P:
    if params is None:
        return kind()
    if not isinstance(params, kind):
        raise RequestError(f"params must be a {kind.__name__}, got {type(params).__name__}", param="params")
    return params


def _takes_long(prompt: Prompt, params: SamplingParams | PoolingParams) -> bool:
    """Whether checking a request could keep the event loop from others for milliseconds."""
    if isinstance(params, SamplingParams) and (
        params.logits_processors or params.structured_output is not None or params.bad_words
    ):
        return True  # a plugin may be imported, words are tokenised
    text = prompt.get("prompt") if isinstance(prompt, Mapping) else prompt
    return isinstance(text, str) and len(text) > _SHORT_TEXT
