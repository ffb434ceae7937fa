"""The plugins of a kind, and how a configuration writes one of them."""

from __future__ import annotations

from vcore.config import PLUGIN_CHOICES, EngineConfig, PluginChoice
from vcore.errors import ConfigError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import PluginKind

__all__ = ["check_named_choices", "named_choices", "selector", "usable"]


def usable(catalog: Catalog, kind: PluginKind) -> list[CatalogEntry]:
    """Every plugin of `kind` that could be selected, whether or not ``auto`` would consider it."""
    return [entry for entry in catalog.entries if entry.kind is kind and entry.ok]


def selector(catalog: Catalog, entry: CatalogEntry, name: str | None = None) -> str:
    """What to write in a configuration to select `entry`: its name, with the distribution if others bear it.

    Args:
        catalog: where the others are.
        entry: what is to be selected.
        name: what it is selected by, if not its name: a file format.
    """
    assert entry.kind is not None  # it can be selected, so it has one
    same = [other for other in usable(catalog, entry.kind) if other.name == entry.name]
    where = f"@{entry.origin.path or entry.distribution}" if len(same) > 1 else ""
    return f"{name or entry.name}{where}"


def named_choices(config: EngineConfig) -> list[tuple[str, PluginKind, PluginChoice]]:
    """Every plugin that `config` names: its key, its kind, and what is written there."""
    found = []
    for key, kind in PLUGIN_CHOICES.items():
        value: object = config
        for part in key.split("."):
            value = getattr(value, part)
        for choice in value if isinstance(value, tuple) else (value,):
            if isinstance(choice, PluginChoice) and not choice.is_auto:
                found.append((key, PluginKind(kind), choice))
    return found


def check_named_choices(config: EngineConfig, catalog: Catalog) -> None:
    """See that every plugin that `config` names is there and takes the options that stand beside it.

    Raises:
        PluginError: one is missing, broken or ambiguous, or its options do not fit.
        ConfigError: an observer has no name.
    """
    for index, observer in enumerate(config.observability.observers):
        if observer.is_auto:
            raise ConfigError(f"observability.observers[{index}]: found 'auto', expected the name of an observer")
    for _, kind, choice in named_choices(config):
        by_format = kind is PluginKind.WEIGHT_LOADER
        entry = catalog.find_by_key(kind, choice.name) if by_format else catalog.find(kind, choice.name)
        catalog.parse_options(entry, choice.options)
