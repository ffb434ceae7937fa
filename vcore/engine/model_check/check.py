"""`check_model`: the way to an engine, as far as it goes without loading, and past the first thing that is wrong.

Where resolution stops at an error, this notes it and goes on with what does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import torch

from vcore.config import EngineConfig
from vcore.engine.model_check.memory import memory_needs
from vcore.engine.model_check.report import ModelReport
from vcore.engine.outline import MetaModel, build_on_meta, fit_weights
from vcore.engine.resolve.attention import attention_needs, choose_backend, resolve_block_size
from vcore.engine.resolve.context_length import resolve_max_model_len
from vcore.engine.resolve.decisions import Decision
from vcore.engine.resolve.hf_values import check_values, vocab_size
from vcore.engine.resolve.limits import Limits, resolve_limits
from vcore.engine.resolve.lookup import check_named_choices
from vcore.engine.resolve.machine import resolve_device, resolve_dtype
from vcore.engine.resolve.model_files import choose_loader
from vcore.engine.resolve.model_plugin import ChosenModel, check_quantization, find_model
from vcore.engine.resolve.model_source import choose_source, fetch_model
from vcore.engine.resolve.policies import choose_executor
from vcore.engine.resolve.trunk import see_trunk
from vcore.errors import DownloadError, ModelNotFoundError, VcoreError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import WeightLoader, WeightLoaderContext
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import AttentionBackendSpec, ModelSpec, PluginKind
from vcore.scheduler.settings import largest_chunk

__all__ = ["check_model"]

T = TypeVar("T")

_CONFIG_ALONE = "dummy"
"""The format that needs no weights, only ``config.json``."""


def check_model(config: EngineConfig, catalog: Catalog, *, base_dir: Path | None = None) -> ModelReport:
    """Find out whether `config.model.path` can be served here, and how. Fetches nothing and reads no weights.

    Args:
        config: what is wanted.
        catalog: the plugins that there are.
        base_dir: a relative `model.path` is looked for here first.

    Raises:
        ConfigError: a plugin that is named is unknown, or its options do not fit.
        PluginError: one is broken.
    """
    check_named_choices(config, catalog)
    return _Check(config, catalog, base_dir).run()


class _Check:
    """One check: its report, filled step by step."""

    def __init__(self, config: EngineConfig, catalog: Catalog, base_dir: Path | None) -> None:
        self._config = config
        self._catalog = catalog
        self._base_dir = base_dir
        self._report = ModelReport(name=config.model.path, ranks=config.runtime.tensor_parallel_size)

    def run(self) -> ModelReport:
        report, config = self._report, self._config
        self._try(lambda: choose_executor(config, self._catalog))
        path = report.path = self._try(self._find)
        loader = self._try(lambda: self._open(path)) if path is not None else None
        hf_config = self._try(lambda: _checked_config(loader)) if loader is not None else None
        if loader is None or hf_config is None:
            return report
        report.architectures = hf_config.architectures
        chosen = self._choose_model(hf_config)
        hf_config = hf_config if chosen is None else chosen.hf_config
        self._choose_numbers(hf_config)
        built = self._describe(chosen, hf_config) if chosen is not None else None
        self._choose_attention()
        self._check_memory()
        if report.weights != "missing":
            self._check_weights(loader, built)
        return report

    def _try(self, step: Callable[[], T]) -> T | None:
        """What `step` gives, or None after noting why it failed."""
        try:
            return step()
        except (VcoreError, OSError) as error:
            told = [str(error), *(f"({note})" for note in getattr(error, "__notes__", ()))]
            self._report.reasons.append(" ".join(told))
            return None

    def _find(self) -> Path:
        model = self._config.model
        source = choose_source(model.path, self._catalog, self._base_dir, source=model.source)
        try:
            return fetch_model(source, self._catalog, offline=True)
        except DownloadError as error:
            error.add_note(f"this command fetches nothing; `vcore pull {model.path}` fetches the model")
            raise

    def _open(self, path: Path) -> WeightLoader:
        try:
            entry, _ = choose_loader(self._config.model, path, self._catalog)
        except ModelNotFoundError:
            if not (path.is_dir() and (path / "config.json").is_file()):
                raise
            entry = self._without_weights(path)
        self._report.loader = entry.address
        context = WeightLoaderContext(path=path, seed=self._config.runtime.seed)
        options = self._config.model.load_format.options
        loader = cast(WeightLoader, self._catalog.create(entry, options=options, context=context))
        return see_trunk(loader, path, self._config.model.pooling)

    def _without_weights(self, path: Path) -> CatalogEntry:
        """A loader for ``config.json`` alone, since that is all there is."""
        self._report.weights = "missing"
        self._report.notes.append(f"{path} has config.json and no weights: whether those will fit is not known")
        return self._catalog.find_by_key(PluginKind.WEIGHT_LOADER, _CONFIG_ALONE)

    def _choose_model(self, hf_config: HFConfig) -> ChosenModel | None:
        found = self._try(lambda: find_model(self._config.model, hf_config, self._catalog))
        if found is None:
            return None
        chosen, decision = found
        self._report.plugin = chosen.entry.address
        served = set(cast(ModelSpec, chosen.entry.spec).architectures)
        if decision is not None and not served & set(hf_config.architectures):
            self._report.notes.append(f"{chosen.entry.address} is taken by {decision.why}")
        self._try(lambda: check_quantization(hf_config, chosen.entry))
        return chosen

    def _choose_numbers(self, hf_config: HFConfig) -> None:
        """Device, dtype and lengths."""
        report, config = self._report, self._config
        self._try(lambda: vocab_size(hf_config))
        device = self._try(lambda: resolve_device(config.runtime))
        report.device = None if device is None else device[0]
        report.dtype = resolve_dtype(config.model.dtype, report.device or torch.device("cpu"), hf_config)[0]
        length = self._try(lambda: resolve_max_model_len(config.model.max_model_len, hf_config))
        report.max_model_len = None if length is None else length[0]

    def _describe(self, chosen: ChosenModel, hf_config: HFConfig) -> MetaModel | None:
        report = self._report
        if report.max_model_len is None or report.dtype is None:
            return None
        dtype, length = report.dtype, report.max_model_len
        reasons = len(report.reasons)
        built = self._try(
            lambda: build_on_meta(
                self._catalog,
                chosen.entry,
                chosen.options,
                hf_config,
                dtype=dtype,
                max_model_len=length,
                tp_size=report.ranks,
            )
        )
        if built is not None:
            report.outline = built.outline
        elif len(report.reasons) == reasons:
            report.notes.append(f"{chosen.entry.address} cannot build the model without memory, so less is known of it")
        return built

    def _choose_attention(self) -> None:
        report, config = self._report, self._config
        length = report.max_model_len
        if report.device is None or report.dtype is None or length is None:
            return
        device, dtype = report.device, report.dtype
        limits = self._try(lambda: resolve_limits(config.scheduler, device_type=device.type, max_model_len=length)[0])
        if limits is None:
            return
        report.max_chunk = _max_chunk(config, limits)
        needs = attention_needs(config, device, dtype, limits, length, report.outline)
        found = self._try(lambda: choose_backend(config, self._catalog, needs))
        if found is None:
            return
        entry, decision = found
        named = Decision(key="attention.backend", value=config.attention.backend.name, why="it is named")
        report.attention = decision or named
        capabilities = cast(AttentionBackendSpec, entry.spec).capabilities
        report.block_size = resolve_block_size(config.cache.block_size, capabilities)[0]

    def _check_memory(self) -> None:
        report = self._report
        outline, device, block_size = report.outline, report.device, report.block_size
        length, chunk = report.max_model_len, report.max_chunk
        if outline is None or device is None or block_size is None or length is None or chunk is None:
            return
        report.memory = self._try(
            lambda: memory_needs(
                outline, self._config.cache, device, block_size=block_size, max_model_len=length, max_chunk=chunk
            )
        )
        if report.memory is not None and outline.kv_cache_specs and report.memory.num_requests == 0:
            report.notes.append(f"the cache holds less than one request of {length:,} tokens; longer ones are refused")

    def _check_weights(self, loader: WeightLoader, built: MetaModel | None) -> None:
        report = self._report
        reader = self._try(loader.open_headers)
        if reader is None:
            report.weights = "misfit"
            return
        with reader:
            synthetic, tensors = reader.synthetic, dict(reader.tensors())
        if synthetic:
            report.weights = "made up"
        elif built is not None:
            fit = fit_weights(built.model, tensors)
            report.weights = {True: "fit", False: "misfit", None: "unknown"}[fit.fits]
            if fit.fits is False:
                report.reasons.append(fit.reason)


def _checked_config(loader: WeightLoader) -> HFConfig:
    config = loader.config()
    check_values(config)
    return config


def _max_chunk(config: EngineConfig, limits: Limits) -> int:
    scheduler = config.scheduler
    return largest_chunk(limits.max_num_batched_tokens, scheduler.long_prefill_threshold, scheduler.chunked_prefill)
