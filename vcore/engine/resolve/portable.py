"""`check_portable`: what can be said of a configuration without the machine and the model that it is meant for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vcore.config import EngineConfig
from vcore.engine.resolve.attention import check_backend
from vcore.engine.resolve.limits import check_limits
from vcore.engine.resolve.lookup import check_named_choices
from vcore.engine.resolve.model_source import choose_source
from vcore.engine.resolve.policies import choose_executor
from vcore.errors import ConfigError
from vcore.plugins.catalog import Catalog
from vcore.plugins.specs import AttentionBackendSpec, PluginKind

__all__ = ["PortableReport", "check_portable"]

_DEVICE = re.compile(r"[a-z]+(:\d+)?")


@dataclass(frozen=True, slots=True)
class PortableReport:
    """What was checked, and what has to wait for the target."""

    checked: tuple[str, ...]
    unchecked: tuple[str, ...]


def check_portable(config: EngineConfig, catalog: Catalog, *, base_dir: Path | None = None) -> PortableReport:
    """Check `config` without a device and without the model's files.

    Args:
        config: what is wanted.
        catalog: the plugins that there are; those that are named must be among them.
        base_dir: a relative `model.path` is looked for here first.

    Raises:
        ConfigError: it contradicts itself, or names a plugin or model that could serve nowhere.
        PluginError: a named plugin is missing, broken or ambiguous, or its options do not fit.
        ModelNotFoundError: no model source knows the form of the model's name.
    """
    check_named_choices(config, catalog)
    _check_device(config.runtime.device)
    max_model_len = config.model.max_model_len
    check_limits(config.scheduler, max_model_len=None if max_model_len == "auto" else max_model_len)
    choose_executor(config, catalog)
    choose_source(config.model.path, catalog, base_dir, source=config.model.source)
    _check_attention(config, catalog)
    checked = ("keys and values", "named plugins and their options", "limits", "executor", "form of the model's name")
    unchecked = ["whether the device is there", "the model's files and architecture", "whether memory suffices"]
    if config.attention.backend.is_auto:
        unchecked.append("the attention backend")
    return PortableReport(checked, tuple(unchecked))


def _check_device(device: str) -> None:
    if device != "auto" and _DEVICE.fullmatch(device) is None:
        raise ConfigError(
            f"runtime.device: found {device!r}, expected a torch device such as 'cpu', 'cuda' or 'cuda:1', or 'auto'"
        )


def _check_attention(config: EngineConfig, catalog: Catalog) -> None:
    """Hold a named backend against what the configuration says outright."""
    choice = config.attention.backend
    if choice.is_auto:
        return
    entry = catalog.find(PluginKind.ATTENTION_BACKEND, choice.name)
    reasons = check_backend(
        cast(AttentionBackendSpec, entry.spec).capabilities,
        device=None if config.runtime.device == "auto" else config.runtime.device,
        dtype=None if config.model.dtype == "auto" else config.model.dtype,
        block_size=None if config.cache.block_size == "auto" else config.cache.block_size,
    )
    if reasons:
        raise ConfigError(f"attention.backend: {entry.title} could not serve: {'; '.join(reasons)}")
