"""`build_engine`: from a configuration to an `EngineCore`. All plugins are looked up here, none in a step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vcore.config import EngineConfig
from vcore.config.models import PluginChoice
from vcore.engine.cache_size import choose_num_blocks
from vcore.engine.core import EngineCore
from vcore.engine.observers import ObserverDispatcher
from vcore.engine.pooling import NO_POOLING, ModelPooling
from vcore.engine.preparation import RequestPreparer
from vcore.engine.processor_pool import ProcessorPool
from vcore.engine.resolve import Resolution, resolve, resolved_plugins
from vcore.engine.runner_builder import RunnerBuilder
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.executor import Executor, ExecutorContext
from vcore.interfaces.logits import LogitsProcessor, LogitsProcessorContext
from vcore.interfaces.observer import Observer, ObserverContext
from vcore.interfaces.scheduling import SchedulingContext, SchedulingPolicy
from vcore.interfaces.sources import ProgressCallback
from vcore.kv_cache.layout import CacheLayout
from vcore.plugins import Catalog, CatalogEntry, ObserverSpec, PluginKind, discover
from vcore.plugins.resolved import ResolvedSet
from vcore.scheduler import Scheduler, SchedulerSettings
from vcore.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from vcore.tokenizer import Tokenizer

__all__ = ["Engine", "build_engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A composed engine, with what its facade needs beside the core."""

    core: EngineCore
    tokenizer: Tokenizer | None
    config: EngineConfig
    """Resolved: no ``auto`` is left, but in `chat`, which is for who parses answers."""
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    catalog: Catalog
    preparer: RequestPreparer
    """For requests with logits processors, before they enter `core`."""
    tokenizer_path: Path | None = None
    """The folder that the tokenizer was read from."""
    plugins: ResolvedSet = field(default_factory=lambda: ResolvedSet(()))
    """What the engine is composed of."""
    pooling: ModelPooling = NO_POOLING
    """How the model makes embeddings, if it does."""


def build_engine(
    config: EngineConfig,
    *,
    plugins: Sequence[object] = (),
    base_dir: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Engine:
    """Discover plugins, resolve every ``auto``, load the model and allocate the cache.

    Args:
        config: what is wanted.
        plugins: plugin objects of this process, beside those that are installed or named in `config`.
        base_dir: what relative paths in `config` are relative to; None for the working directory.
        progress: told of downloads.

    Raises:
        ConfigError: the configuration cannot be met here.
        PluginError: a selected plugin is missing, broken or ambiguous.
        ModelError: the model cannot be found, fetched, served or loaded.
        CapacityError: memory does not suffice.
    """
    catalog = discover(config.plugins, objects=plugins, base_dir=base_dir)
    catalog.require()
    _set_log_level(config, catalog)
    resolution = resolve(config, catalog, base_dir=base_dir, progress=progress)
    # What can fail without ranks to shut down comes before them.
    resolved = resolved_plugins(resolution, catalog)
    tokenizer_path = resolution.tokenizer_path
    tokenizer = None if tokenizer_path is None else load_tokenizer(tokenizer_path)
    processors = ProcessorPool(_processor_factory(resolution, catalog, tokenizer))
    executor = _build_executor(resolution, catalog, processors)
    try:
        executor.load()
        layout = executor.cache_layout()
        num_blocks = choose_num_blocks(resolution, executor, layout)
        executor.initialize_cache(num_blocks)
        core = EngineCore(
            _build_scheduler(resolution, catalog, num_blocks, layout),
            executor,
            observers=_build_observers(resolution, catalog),
            depth=2 if resolution.config.runtime.async_scheduling else 1,
        )
    except BaseException:
        executor.shutdown()
        raise
    return Engine(
        core=core,
        tokenizer=tokenizer,
        config=resolution.config.model_copy(
            update={"cache": resolution.config.cache.model_copy(update={"num_blocks": num_blocks})}
        ),
        vocab_size=resolution.vocab_size,
        max_model_len=resolution.max_model_len,
        eos_token_ids=resolution.eos_token_ids,
        catalog=catalog,
        preparer=RequestPreparer(processors.get),
        tokenizer_path=tokenizer_path,
        plugins=resolved,
        pooling=resolution.pooling,
    )


def _set_log_level(config: EngineConfig, catalog: Catalog) -> None:
    """Let vcore and its plugins log from the configured level on; where that goes is the program's affair."""
    level = config.observability.log_level
    if level is None:
        return
    modules = {entry.origin.module for entry in catalog.entries if entry.origin.module is not None}
    for package in {"vcore", *(module.partition(".")[0] for module in modules)}:
        logging.getLogger(package).setLevel(level.upper())


def _build_executor(resolution: Resolution, catalog: Catalog, processors: ProcessorPool) -> Executor:
    config = resolution.config
    context = ExecutorContext(
        runner_factory=RunnerBuilder(resolution, catalog, processors), world_size=config.runtime.tensor_parallel_size
    )
    return cast(Executor, catalog.create(resolution.executor, options=config.executor.options, context=context))


def _processor_factory(
    resolution: Resolution, catalog: Catalog, tokenizer: Tokenizer | None
) -> Callable[[str], LogitsProcessor]:
    """What makes a logits processor by its name."""
    context = LogitsProcessorContext(
        vocab_size=resolution.vocab_size,
        device=resolution.device,
        max_num_seqs=resolution.max_num_seqs,
        tokenizer=tokenizer,
        eos_token_ids=resolution.eos_token_ids,
    )

    def make(name: str) -> LogitsProcessor:
        return cast(LogitsProcessor, catalog.create(catalog.find(PluginKind.LOGITS_PROCESSOR, name), context=context))

    return make


def _build_scheduler(resolution: Resolution, catalog: Catalog, num_blocks: int, layout: CacheLayout) -> Scheduler:
    config = resolution.config
    settings = SchedulerSettings(
        max_num_seqs=resolution.max_num_seqs,
        max_num_batched_tokens=resolution.max_num_batched_tokens,
        max_model_len=resolution.max_model_len,
        block_size=resolution.block_size,
        num_blocks=num_blocks,
        windows=layout.windows,
        prefix_caching=config.cache.prefix_caching,
        long_prefill_threshold=config.scheduler.long_prefill_threshold,
        chunked_prefill=config.scheduler.chunked_prefill,
        strict=config.plugins.strict,
    )
    policy = catalog.create(
        resolution.scheduling,
        options=config.scheduler.policy.options,
        context=SchedulingContext(
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            block_size=settings.block_size,
            num_blocks=num_blocks,
            chunked_prefill=settings.chunked_prefill,
        ),
    )

    def make_eviction(context: EvictionContext) -> EvictionPolicy:
        options = config.cache.eviction.options
        return cast(EvictionPolicy, catalog.create(resolution.eviction, options=options, context=context))

    return Scheduler(
        settings,
        cast(SchedulingPolicy, policy),
        make_eviction,
        policy_name=resolution.scheduling.title,
        eviction_name=resolution.eviction.title,
    )


def _build_observers(resolution: Resolution, catalog: Catalog) -> ObserverDispatcher | None:
    chosen: list[tuple[CatalogEntry, PluginChoice]] = list(
        zip(resolution.observers, resolution.config.observability.observers, strict=True)
    )
    if not chosen:
        return None
    context = ObserverContext(engine_id=f"engine-{id(resolution):x}")
    observers = {}
    for entry, choice in chosen:
        observer = cast(Observer, catalog.create(entry, options=choice.options, context=context))
        observers[entry.address] = (observer, cast(ObserverSpec, entry.spec).events)
    return ObserverDispatcher(observers)
