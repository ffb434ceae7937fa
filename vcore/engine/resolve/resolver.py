"""`resolve`: from what is wanted to what there is. Every ``auto`` becomes a value, with the reason.

model.path ──source──> files ──loader──> config.json ──architecture──> model plugin ──┐
machine ──> device ──┬──> dtype ───────────────────────────────────────────────────┬──┴──> outline
config.json ─────────┼──> max_model_len ──> the scheduler's limits ────────────────┘          │
                     └──> device, dtype, limits, layers ──> attention backend, block size <───┘
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vcore.config import EngineConfig, load_config
from vcore.config.problems import dotted_keys
from vcore.engine.outline import outline_model
from vcore.engine.resolve.attention import attention_needs, choose_backend, resolve_block_size
from vcore.engine.resolve.context_length import resolve_max_model_len
from vcore.engine.resolve.decisions import Decision, DecisionLog
from vcore.engine.resolve.hf_values import check_values, eos_token_ids, vocab_size
from vcore.engine.resolve.limits import check_limits, resolve_limits
from vcore.engine.resolve.lookup import check_named_choices, selector
from vcore.engine.resolve.machine import resolve_async_scheduling, resolve_device, resolve_dtype, resolve_num_threads
from vcore.engine.resolve.model_files import choose_loader
from vcore.engine.resolve.model_plugin import ChosenModel, choose_model
from vcore.engine.resolve.model_source import choose_source, fetch_model
from vcore.engine.resolve.policies import choose_executor, choose_observers, choose_policy, choose_structured_output
from vcore.engine.resolve.pooling import resolve_pooling
from vcore.engine.resolve.resolution import Resolution
from vcore.engine.resolve.trunk import see_trunk
from vcore.errors import ConfigError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.sources import ProgressCallback
from vcore.interfaces.weights import WeightLoader, WeightLoaderContext
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import AttentionBackendSpec

if TYPE_CHECKING:
    import torch

__all__ = ["resolve"]

_TOLD_ONLY = frozenset(
    {"model.path", "cache.num_blocks", "chat.tool_parser", "chat.reasoning_parser", "simulation.routing"}
)
"""Decisions that are told, but leave the configuration as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What is chosen without a look at the model."""

    device: torch.device
    executor: CatalogEntry
    scheduling: CatalogEntry
    eviction: CatalogEntry
    observers: tuple[CatalogEntry, ...]
    structured_output: CatalogEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenedModel:
    """A model's files, opened as far as their configuration."""

    loader_entry: CatalogEntry
    loader: WeightLoader
    hf_config: HFConfig
    chosen: ChosenModel


def resolve(
    config: EngineConfig,
    catalog: Catalog,
    *,
    base_dir: Path | None = None,
    progress: ProgressCallback | None = None,
    offline: bool = False,
) -> Resolution:
    """Decide every ``auto`` of `config` for this machine and this model. Fetches the model if it is not here.

    What can be refused without the model is refused before it is fetched.

    Args:
        config: what is wanted.
        catalog: the plugins that there are.
        base_dir: a relative `model.path` is looked for here first, then in the working directory.
        progress: told of a download.
        offline: fetch nothing, whatever `model.offline` says.

    Raises:
        ConfigError: it cannot be met here; the message has the numbers.
        PluginError: a selected plugin is missing, broken or ambiguous, or its options do not fit.
        ModelError: the model cannot be found, fetched, read or served.
    """
    log = DecisionLog()
    check_named_choices(config, catalog)
    check_limits(config.scheduler)
    tokenizer = _find_tokenizer(config, base_dir)
    parts = _choose_parts(config, catalog, log)
    source = choose_source(config.model.path, catalog, base_dir, source=config.model.source)
    path = fetch_model(source, catalog, offline=offline or config.model.offline, progress=progress)
    log.decisions.append(Decision(key="model.path", value=str(path), why=source.why))
    if config.model.source.is_auto:
        log.decisions.append(Decision(key="model.source", value=selector(catalog, source.entry), why=source.why))
    model = _open_model(config, catalog, path, progress, log)
    dtype = log.take(resolve_dtype(config.model.dtype, parts.device, model.hf_config))
    length = log.take(resolve_max_model_len(config.model.max_model_len, model.hf_config))
    limits = log.take_all(resolve_limits(config.scheduler, device_type=parts.device.type, max_model_len=length))
    pooling = log.take(resolve_pooling(config.model.pooling, path, model.hf_config))
    outline = outline_model(
        catalog,
        model.chosen.entry,
        model.chosen.options,
        model.hf_config,
        dtype=dtype,
        max_model_len=length,
        tp_size=config.runtime.tensor_parallel_size,
    )
    needs = attention_needs(config, parts.device, dtype, limits, length, outline)
    attention = log.take(choose_backend(config, catalog, needs))
    block_size = log.take(
        resolve_block_size(config.cache.block_size, cast(AttentionBackendSpec, attention.spec).capabilities)
    )
    _tell_num_blocks(config, parts.device, log)
    _tell_chat(config, log)
    _tell_routing(config, log)
    generation_config = model.loader.generation_config()
    return Resolution(
        config=_without_auto(config, log, tokenizer, model.chosen.options),
        decisions=_in_order(log),
        model_path=path,
        hf_config=model.hf_config,
        generation_config=generation_config,
        loader=model.loader,
        source_entry=source.entry,
        loader_entry=model.loader_entry,
        model=model.chosen.entry,
        attention=attention,
        scheduling=parts.scheduling,
        eviction=parts.eviction,
        executor=parts.executor,
        observers=parts.observers,
        structured_output=parts.structured_output,
        device=parts.device,
        dtype=dtype,
        max_model_len=length,
        block_size=block_size,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        vocab_size=vocab_size(model.hf_config),
        eos_token_ids=eos_token_ids(generation_config, model.hf_config),
        pooling=pooling,
        outline=outline,
    )


def _choose_parts(config: EngineConfig, catalog: Catalog, log: DecisionLog) -> _Parts:
    log.take(resolve_num_threads(config.runtime.num_threads))
    device = log.take(resolve_device(config.runtime))
    log.take(resolve_async_scheduling(config.runtime.async_scheduling, device))
    return _Parts(
        device=device,
        executor=log.take(choose_executor(config, catalog)),
        scheduling=log.take(choose_policy(config.scheduler.policy, "scheduler.policy", catalog)),
        eviction=log.take(choose_policy(config.cache.eviction, "cache.eviction", catalog)),
        observers=choose_observers(config, catalog),
        structured_output=log.take(choose_structured_output(config.sampling.structured_output, catalog)),
    )


def _find_tokenizer(config: EngineConfig, base_dir: Path | None) -> Path | None:
    """The absolute path of the tokenizer's folder, if one is configured.

    Raises:
        ConfigError: it is not there.
    """
    if config.model.tokenizer is None:
        return None
    expanded = os.path.expanduser(config.model.tokenizer)  # unlike pathlib's, it never raises
    for folder in (base_dir or Path.cwd(), Path.cwd()):
        if os.path.exists(folder / expanded):
            return Path(os.path.abspath(folder / expanded))
    raise ConfigError(
        f"model.tokenizer: there is no folder {config.model.tokenizer!r} (working directory {Path.cwd()}); expected "
        "one with a tokenizer's files, or nothing for the model's own"
    )


def _open_model(
    config: EngineConfig, catalog: Catalog, path: Path, progress: ProgressCallback | None, log: DecisionLog
) -> _OpenedModel:
    """Choose the loader of the files at `path`, read the model's configuration, choose the model plugin."""
    loader_entry = log.take(choose_loader(config.model, path, catalog))
    context = WeightLoaderContext(path=path, seed=config.runtime.seed, progress=progress)
    options = config.model.load_format.options
    loader = cast(WeightLoader, catalog.create(loader_entry, options=options, context=context))
    loader = see_trunk(loader, path, config.model.pooling)
    hf_config = loader.config()
    check_values(hf_config)
    chosen = log.take(choose_model(config.model, hf_config, catalog))
    return _OpenedModel(loader_entry=loader_entry, loader=loader, hf_config=chosen.hf_config, chosen=chosen)


def _tell_num_blocks(config: EngineConfig, device: torch.device, log: DecisionLog) -> None:
    if config.cache.num_blocks != "auto":
        return
    memory = "the machine's free memory, at most 4 GiB," if device.type == "cpu" else f"the memory of {device}"
    why = f"as many as cache.memory_fraction={config.cache.memory_fraction} of {memory} holds beside the model"
    log.decisions.append(Decision(key="cache.num_blocks", value="known once the model is loaded", why=why))


def _tell_chat(config: EngineConfig, log: DecisionLog) -> None:
    why = "the parser that knows the chat template in use, or none; the template comes with the tokenizer"
    for name in ("tool_parser", "reasoning_parser"):
        choice = getattr(config.chat, name)
        if choice is not None and choice.is_auto:
            log.decisions.append(Decision(key=f"chat.{name}", value="known once the tokenizer is loaded", why=why))


def _tell_routing(config: EngineConfig, log: DecisionLog) -> None:
    if config.simulation.routing.is_auto:
        why = "`vcore simulate` takes the highest rank; an engine routes nothing, and starts without one"
        log.decisions.append(Decision(key="simulation.routing", value="known in a simulation", why=why))


def _without_auto(
    config: EngineConfig, log: DecisionLog, tokenizer: Path | None, model_options: Mapping[str, Any]
) -> EngineConfig:
    values: dict[str, object] = {one.key: one.value for one in log.decisions if one.key not in _TOLD_ONLY}
    if "model.plugin" in values and model_options:  # those of model.fallback
        values["model.plugin"] = {"name": values["model.plugin"], "options": dict(model_options)}
    if tokenizer is not None:
        values["model.tokenizer"] = str(tokenizer)
    return load_config(config, values)


def _in_order(log: DecisionLog) -> tuple[Decision, ...]:
    order = dotted_keys(EngineConfig)
    return tuple(sorted(log.decisions, key=lambda decision: order.index(decision.key)))
