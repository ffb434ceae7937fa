"""`LLM`: the engine for offline use, in the caller's process."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vcore.config import EngineConfig
from vcore.engine.batch import Params, each
from vcore.engine.conversations import Conversation, split_conversations
from vcore.engine.facade import Facade, config_of
from vcore.engine.offline_session import OfflineSession
from vcore.engine.param_checks import require_tokenizer
from vcore.engine.pooling import embedding_output
from vcore.engine.profile_folder import ProfileFolder
from vcore.engine.progress import loading_progress
from vcore.engine.prompts import Prompt, split_prompts
from vcore.errors import EngineError, RequestError
from vcore.outputs import EmbeddingOutput, RequestOutput
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams

if TYPE_CHECKING:
    from vcore.engine.build import Engine
    from vcore.engine.core import EngineHealth
    from vcore.scheduler import SchedulerStats
    from vcore.tokenizer.tokenizer import Tokenizer

__all__ = ["LLM"]

logger = logging.getLogger(__name__)


class LLM(Facade):
    """A model, ready to generate.

        with LLM(model="smollm2-135m") as llm:
            [output] = llm.generate("The capital of France is", SamplingParams(temperature=0.0))
            print(output.outputs[0].text)

    Everything runs in the caller's process and thread: no ``__main__`` guard is needed, notebooks and
    debuggers work, and Ctrl-C ends a call between two steps and leaves the engine clean.

    Threads: `generate`, `chat` and `stream` may be called from several threads at once, and several
    streams may be read in turn in one thread; all share the batch. Only the main thread defers Ctrl-C.
    `close`, `start_profile`, `stop_profile` and `reset_prefix_cache` belong to moments when no call runs.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        config: EngineConfig | Mapping[str, Any] | str | Path | None = None,
        plugins: Sequence[object] = (),
        base_dir: Path | None = None,
        progress: bool = True,
        **overrides: Any,
    ) -> None:
        """Load a model and allocate the cache.

        Args:
            model: a name, folder or file; None for what `config` says, or else the default model.
            config: a tree, a dictionary, or a file with one.
            plugins: plugin objects, beside those that are installed or named in `config`.
            base_dir: what relative paths in a `config` that is no file are relative to; None for the working
                directory. In a file they are relative to the file.
            progress: whether to show loading and downloads, if stderr is a terminal.
            overrides: parts of the tree (``cache={"block_size": 32}``), or flat keywords such as ``dtype``,
                ``max_model_len``, ``gpu_memory_utilization``, ``tensor_parallel_size``, ``device``, ``seed``.

        Raises:
            ConfigError: the configuration is wrong, or cannot be met here.
            PluginError: a selected plugin is missing, broken or ambiguous.
            ModelError: the model cannot be found, fetched, served or loaded.
            CapacityError: memory does not suffice.
        """
        self._engine: Engine | None = None
        self._profile = ProfileFolder()
        tree = config_of("LLM", model, config, overrides)
        with loading_progress(enabled=progress) as report:
            from vcore.engine.build import build_engine

            self._engine = build_engine(tree, plugins=plugins, base_dir=base_dir, progress=report)
        self._session = OfflineSession(self._engine)

    @classmethod
    def from_engine(cls, engine: Engine) -> Self:
        """Put the facade before an engine that was composed otherwise; the `LLM` owns it from then on."""
        llm = cls.__new__(cls)
        llm._engine = engine
        llm._profile = ProfileFolder()
        llm._session = OfflineSession(engine)
        return llm

    # Generating

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params = None,
        *,
        progress: bool = True,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Generate for one prompt or many, as one batch.

        All prompts and parameters are checked before any enters the engine: if one is wrong, none runs. A
        request that fails while it runs (a logits processor raised, a step failed) does not take the
        others with it: its output has the finish reason ``error`` and the message as stop reason, and a
        warning is logged.

        Args:
            prompts: a string, a list of token ids, ``{"prompt": ...}``, ``{"prompt_token_ids": [...]}``, or
                a list of these.
            sampling_params: one for all, a list with one a prompt, or None for ``SamplingParams()``.
            progress: whether to show a bar, if stderr is a terminal.
            use_tqdm: the same, by its older name.

        Returns:
            One output a prompt, in their order.

        Raises:
            RequestError: a prompt or its parameters are wrong; of several prompts it says which.
            EngineDeadError: the engine cannot go on.
        """
        session = self._requests()
        several, _ = split_prompts(prompts)
        return session.run(session.process(several, sampling_params), progress=progress and use_tqdm)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: Params = None,
        *,
        progress: bool = True,
        use_tqdm: bool = True,
        **template_options: Any,
    ) -> list[RequestOutput]:
        """Generate the next message of one conversation or many.

        Args:
            messages: a list of ``{"role": ..., "content": ...}``, or a list of such lists.
            sampling_params: as for `generate`.
            progress: as for `generate`.
            use_tqdm: as for `generate`.
            template_options: for the chat template, such as ``add_generation_prompt`` (by default true).

        Returns:
            One output a conversation, in their order; its `prompt` is what the template made of it.

        Raises:
            RequestError: as `generate`; also if there is no chat template, or it refuses the messages.
        """
        session = self._requests()
        conversations, _ = split_conversations(messages)
        prompts = each(conversations, lambda one, _: self.render_chat(one, **template_options))
        return session.run(session.process(prompts, sampling_params), progress=progress and use_tqdm)

    def stream(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> Generator[RequestOutput]:
        """Generate for one prompt, telling every change.

        The prompt is checked at once. It enters the engine when the first output is asked for, and leaves
        it when the iterator is closed or dropped.

        Yields:
            The request with all of its text and tokens so far; text that was shown is never taken back.

        Raises:
            RequestError: the prompt or the parameters are wrong.
        """
        session = self._requests()
        return session.stream(session.process([prompt], sampling_params))

    def embed(
        self, prompts: Prompt | Sequence[Prompt], params: PoolingParams | None = None, *, progress: bool = True
    ) -> list[EmbeddingOutput]:
        """Embed one prompt or many, as one batch.

        All are checked before any enters the engine. One that fails while it runs does not take the others with it:
        it has no embedding, `error` says why, and a warning is logged.

        Args:
            prompts: as for `generate`.
            params: for all; None for ``PoolingParams()``.
            progress: whether to show a bar, if stderr is a terminal.

        Returns:
            One output a prompt, in their order.

        Raises:
            RequestError: the model makes no embeddings, or a prompt or the parameters are wrong; of several prompts it
                says which.
            EngineDeadError: the engine cannot go on.
        """
        params = PoolingParams() if params is None else params
        if not isinstance(params, PoolingParams):
            raise RequestError(f"params must be a PoolingParams, got {type(params).__name__}", param="params")
        self._open().pooling.require()
        several, _ = split_prompts(prompts)
        requests = self._session.process_embeddings(several, params)
        return list(map(embedding_output, self._session.run(requests, progress=progress)))

    # The rest of the engine

    def start_profile(self, folder: str | Path | None = None) -> Path:
        """Start torch's profiler; what `generate` does until `stop_profile` is recorded.

        Args:
            folder: where the Chrome traces go; by default ``vcore_profile`` in the working directory.

        Returns:
            The folder, which is made if it is not there.

        Raises:
            EngineError: a profile is being taken already.
        """
        core = self._open().core
        target = self._profile.begin(folder)
        try:
            core.start_profile(target)
        except BaseException:
            self._profile.forget()
            raise
        return target

    def stop_profile(self) -> Path:
        """Stop the profiler and write the traces, which ``chrome://tracing`` and Perfetto open.

        Returns:
            The folder with the traces.

        Raises:
            EngineError: no profile is being taken.
        """
        core = self._open().core
        target = self._profile.end()
        core.stop_profile()
        return target

    def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; whether that was possible."""
        return self._open().core.reset_prefix_cache()

    def stats(self) -> SchedulerStats:
        """Counts of requests, blocks and prefix hits."""
        return self._open().core.stats()

    def health(self) -> EngineHealth:
        """Whether the engine goes on, and every policy fault so far."""
        return self._open().core.health()

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            RequestError: the engine was made without one.
        """
        return require_tokenizer(self._open().tokenizer)

    @property
    def config(self) -> EngineConfig:
        """The configuration, with every ``auto`` resolved."""
        return self._open().config

    @property
    def vocab_size(self) -> int:
        """How many rows the model's embedding has; token ids are below it."""
        return self._open().vocab_size

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and output together."""
        return self._open().max_model_len

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._engine is None

    def close(self) -> None:
        """Free the model and the cache. Harmless when called twice; a call of anything else is an error after it."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.core.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Nothing may be raised here, and at the interpreter's end modules may be gone.
        try:
            if getattr(self, "_engine", None) is not None:
                self.close()
        except Exception:
            logger.debug("while an LLM was collected", exc_info=True)

    # Inside

    def _open(self) -> Engine:
        if self._engine is None:
            raise EngineError("this LLM was closed: make a new one")
        return self._engine

    def _requests(self) -> OfflineSession:
        self._open()
        return self._session
