"""`Composition`: which engine to start, in which process; `EngineFacts`: what its users need to know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vcore.config import EngineConfig
from vcore.engine.input_processor import InputProcessor
from vcore.engine.pooling import ModelPooling
from vcore.engine.processor_options import ProcessorOptions
from vcore.engine.remote.link import EngineLink
from vcore.engine.remote.messages import FromEngine, Ready
from vcore.errors import ConfigError
from vcore.plugins.discovery import discover
from vcore.plugins.resolved import ResolvedSet
from vcore.sampling_params import LogitsProcessorRequest
from vcore.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from vcore.engine.build import Engine
    from vcore.plugins.catalog import Catalog
    from vcore.tokenizer import Tokenizer

__all__ = ["Composition", "EngineFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """An engine, as seen from outside its process."""

    config: EngineConfig
    """Resolved."""
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    tokenizer: Tokenizer | None
    catalog: Catalog
    """What is found in this process, which has the same plugins installed."""
    plugins: ResolvedSet
    """What the engine is composed of."""
    pooling: ModelPooling

    def input_processor(self) -> InputProcessor:
        """Checks prompts for this engine. Options of logits processors are checked, and cross as they were given."""
        options = ProcessorOptions(self.catalog, self.config.sampling.structured_output, loads=False)

        def check(asked: LogitsProcessorRequest) -> LogitsProcessorRequest:
            options.check(asked)
            return asked

        return InputProcessor(
            tokenizer=self.tokenizer,
            vocab_size=self.vocab_size,
            max_model_len=self.max_model_len,
            eos_token_ids=self.eos_token_ids,
            seed=self.config.runtime.seed,
            check_processor=check,
            form_processor=options.for_structured_output,
            pooling=self.pooling,
        )


class Composition:
    """A configuration, and where it is to become an engine."""

    def __init__(
        self, config: EngineConfig, *, plugins: Sequence[object] = (), base_dir: Path | None, in_process: bool
    ) -> None:
        """Check what can be checked now.

        Args:
            config: what is wanted.
            plugins: plugin objects, which another process cannot get.
            base_dir: what relative paths in `config` are relative to; None for the working directory of now.
            in_process: whether it stays in this process.

        Raises:
            ConfigError: plugin objects, or options that are no plain data, for an engine in another process.
        """
        self.config = config
        self._plugins = tuple(plugins)
        self._base_dir = (base_dir or Path.cwd()).absolute()
        self._working_dir = Path.cwd()
        self._in_process = in_process
        if plugins and not in_process:
            names = ", ".join(repr(plugin) for plugin in plugins)
            raise ConfigError(
                f"plugin objects ({names}) cannot be passed to an engine in a process of its own: move each to a file "
                "and name that in the configuration, as `plugins.load: [./my_plugin.py]`, or pass in_process=True"
            )
        self._data = {} if in_process else _as_data(config)
        self._tokenizer: tuple[str, Tokenizer] | None = None

    def make_link(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[str], None]) -> EngineLink:
        """A line to a new engine, which is not started yet."""
        if self._in_process:
            from vcore.engine.remote.thread_link import ThreadLink

            return ThreadLink(self._build, on_message, on_lost)
        from vcore.engine.remote.process_link import ProcessLink

        return ProcessLink(self._data, self._base_dir, self._working_dir, on_message, on_lost)

    def _build(self) -> Engine:
        from vcore.engine.build import build_engine

        return build_engine(self.config, plugins=self._plugins, base_dir=self._base_dir)

    async def discover(self) -> Catalog:
        """The plugins that this process finds.

        Raises:
            ConfigError: as `vcore.plugins.discover`.
        """
        return await asyncio.to_thread(discover, self.config.plugins, objects=self._plugins, base_dir=self._base_dir)

    async def facts(self, ready: Ready, catalog: Catalog) -> EngineFacts:
        """What an engine that has become ready says of itself, and its tokenizer.

        Raises:
            ModelError: the tokenizer cannot be loaded.
        """
        config = EngineConfig.model_validate_json(ready.config)
        return EngineFacts(
            config=config.model_copy(update={"server": self.config.server}),
            vocab_size=ready.vocab_size,
            max_model_len=ready.max_model_len,
            eos_token_ids=ready.eos_token_ids,
            tokenizer=await self._load_tokenizer(ready.tokenizer_path),
            catalog=catalog,
            plugins=ResolvedSet.from_dict(ready.plugins),
            pooling=ready.pooling,
        )

    async def _load_tokenizer(self, path: str | None) -> Tokenizer | None:
        """The tokenizer in a folder; the last one is kept for an engine that is started again."""
        if path is None:
            return None
        if self._tokenizer is None or self._tokenizer[0] != path:
            self._tokenizer = path, await asyncio.to_thread(load_tokenizer, Path(path))
        return self._tokenizer[1]


def _as_data(config: EngineConfig) -> dict[str, Any]:
    """What was set of `config`, as JSON data; without `server`, whose secrets are no business of the engine."""
    try:
        data: dict[str, Any] = msgspec.json.decode(config.model_dump_json(exclude_unset=True, exclude={"server"}))
    except ValueError as error:
        raise ConfigError(
            f"the configuration cannot be passed to the engine's process, because options of a plugin are no plain "
            f"data: {error}. Use texts, numbers, lists and mappings."
        ) from error
    return data
