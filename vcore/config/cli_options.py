"""`config_from_cli`: the options that every command shares (``--config --set -p`` and a model) as a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vcore.config.loading import load_config, looks_like_file, parse_set
from vcore.config.models import EngineConfig
from vcore.errors import ConfigError

__all__ = ["config_from_cli"]

_WITHOUT = "no:"


def config_from_cli(
    config: Path | None,
    set_: Sequence[str] = (),
    plugins: Sequence[str] = (),
    model: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[EngineConfig, Path | None]:
    """The configuration that a command line states, and the folder of its file.

    Args:
        config: ``--config``: a file.
        set_: ``--set``: ``KEY=VALUE`` strings, which win over the file; of a key given twice, the last counts.
        plugins: ``-p``: a plugin's file (relative to the working directory) or module, which is loaded beside
            those of the file; or ``no:NAME``, which is not imported.
        model: the model's name, folder or file; as ``--set model.path=...``.
        options: what options of the command's own say, by dotted key; they win over `set_`. None and empty lists
            stand for options that were not given.

    Returns:
        The configuration, and the folder of `config`, absolute (None without a file).

    Raises:
        ConfigError: something is unknown, malformed, contradictory or of the wrong type.
    """
    values = parse_set(set_)
    if model is not None:
        if values.get("model.path", model) != model:
            raise ConfigError(
                f"the model is given twice, as {model!r} and as --set model.path={values['model.path']}; leave one out"
            )
        values["model.path"] = model
    if isinstance(values.get("model.path"), str):
        values["model.path"] = _anchored(values["model.path"])
    given = {key: value for key, value in options.items() if value is not None and value != []}
    chosen = load_config(config, values | given, overrides_name="the command line" if given else "--set")
    load, disable = _sort_plugins(plugins)
    extended: dict[str, Any] = {}
    if load:
        extended["plugins.load"] = [*chosen.plugins.load, *load]
    if disable:
        extended["plugins.disable"] = [*chosen.plugins.disable, *disable]
    base_dir = None if config is None else Path(os.path.expanduser(config)).absolute().parent
    return (load_config(chosen, extended, overrides_name="-p") if extended else chosen), base_dir


def _anchored(model: str) -> str:
    """`model` as an absolute path if it is one in the working directory: the file's folder must not come first."""
    exists = "://" not in model and os.path.exists(os.path.expanduser(model))
    return os.path.abspath(os.path.expanduser(model)) if exists else model


def _sort_plugins(plugins: Sequence[str]) -> tuple[list[str], list[str]]:
    """What to load, files as absolute paths, and what to disable."""
    load, disable = [], []
    for plugin in plugins:
        name = plugin.removeprefix(_WITHOUT)
        if not name:
            raise ConfigError(f"-p: found {plugin!r}, expected a plugin's file or module, or {_WITHOUT}NAME")
        if plugin.startswith(_WITHOUT):
            disable.append(name)
        else:
            load.append(os.path.abspath(os.path.expanduser(name)) if looks_like_file(name) else name)
    return load, disable
