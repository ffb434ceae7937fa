"""Why a plugin is or is not what a configuration selects, in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcore.errors import PluginError
from vcore.plugins.catalog import LOOKUP_FIELDS, Catalog
from vcore.plugins.complaints import config_key
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import ANY_ARCHITECTURE, LogitsProcessorSpec, PluginKind

if TYPE_CHECKING:
    from vcore.config import EngineConfig, PluginChoice

__all__ = ["Explanation", "explain"]

_BY_RANK_ALONE = (PluginKind.SCHEDULING_POLICY, PluginKind.EVICTION_POLICY, PluginKind.ROUTING_POLICY)
"""Kinds of which any can do the job, whatever the model and the device."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say of one plugin under one configuration."""

    selected: bool | None
    """Whether the configuration selects it; None where that depends on the model, the device or a request."""
    sentences: tuple[str, ...]


def explain(entry: CatalogEntry, catalog: Catalog, config: EngineConfig) -> Explanation:
    """Why `config` selects `entry`, or not. Imports none of the plugin's code."""
    sentences = [f"it came in by {entry.origin}, of {entry.owner}", *entry.notes]
    if not entry.ok or entry.spec is None:
        return Explanation(False, (*sentences, f"it cannot be selected, being {entry.status.value}: {entry.reason}"))
    choices = _choices(entry.spec.kind, config)
    named = [choice for choice in choices if not choice.is_auto]
    selected: bool | None
    if named:
        selected, reasons = _by_name(entry, catalog, named)
    elif entry.spec.kind in LOOKUP_FIELDS:
        selected, reasons = _by_key(entry, catalog)
        if _is_fallback(entry, catalog, config):
            selected, reasons = None, [*reasons, "`model.fallback` takes it where nothing serves the architecture"]
    elif choices:
        selected, reasons = _by_auto(entry, catalog)
    elif entry.spec.kind is PluginKind.OBSERVER:
        selected, reasons = False, ["`observability.observers` lists none; write its name there"]
    else:
        selected, reasons = None, ["a request selects it, by its name"]
        if isinstance(entry.spec, LogitsProcessorSpec) and entry.spec.structured_output:
            reasons.append("if `sampling.structured_output` chooses it, so does one that asks for a form of text")
    return Explanation(selected, (*sentences, *reasons))


def _choices(kind: PluginKind, config: EngineConfig) -> list[PluginChoice]:
    """What the configuration says of `kind`: nothing, one choice, or a list of them."""
    key = config_key(kind)
    if key is None:
        return []
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    return list(value) if isinstance(value, tuple) else [value]  # type: ignore[list-item]  # it is a PluginChoice


def _by_name(entry: CatalogEntry, catalog: Catalog, choices: list[PluginChoice]) -> tuple[bool, list[str]]:
    assert entry.spec is not None
    kind, key = entry.spec.kind, config_key(entry.spec.kind)
    find = catalog.find_by_key if kind is PluginKind.WEIGHT_LOADER else catalog.find
    sentences = []
    for choice in choices:
        try:
            found = find(kind, choice.name)
        except PluginError as error:
            sentences.append(f"`{key}: {choice.name}` selects nothing: {error}")
            continue
        if found == entry:
            return True, [f"`{key}: {choice.name}` selects it"]
        sentences.append(f"`{key}: {choice.name}` selects {found.address} instead")
    return False, sentences


def _by_key(entry: CatalogEntry, catalog: Catalog) -> tuple[bool | None, list[str]]:
    """Models, loaders and sources go by what they serve."""
    assert entry.spec is not None
    sentences = []
    serves = False
    for field in LOOKUP_FIELDS[entry.spec.kind]:
        for key in getattr(entry.spec, field):
            if key == ANY_ARCHITECTURE:
                sentences.append("it serves whatever `model.plugin` or `model.fallback` gives it, and nothing unasked")
                continue
            try:
                found = catalog.find_by_key(entry.spec.kind, key, field=field)
            except PluginError as error:
                sentences.append(f"{field}: {key!r} is served by nobody: {error}")
                continue
            serves = serves or found == entry
            by = "it" if found == entry else f"{found.address} instead"
            sentences.append(f"{field}: {key!r} is served by {by}")
    return (None if serves else False), sentences


def _is_fallback(entry: CatalogEntry, catalog: Catalog, config: EngineConfig) -> bool:
    fallback = config.model.fallback
    if fallback is None or entry.kind is not PluginKind.MODEL:
        return False
    try:
        return catalog.find(PluginKind.MODEL, fallback.name) == entry
    except PluginError:
        return False  # of another plugin, whose own explanation says it


def _by_auto(entry: CatalogEntry, catalog: Catalog) -> tuple[bool | None, list[str]]:
    assert entry.spec is not None
    kind, rank = entry.spec.kind, entry.spec.rank
    reasons = [reason for other, reason in catalog.rejected(kind) if other == entry]
    if reasons:
        return False, reasons
    candidates = catalog.candidates(kind)
    ranked = ", ".join(f"{other.address} {other.spec.rank}" for other in candidates if other.spec is not None)
    try:
        best = catalog.best(kind)
    except PluginError as error:
        return None, [f"`{config_key(kind)}: auto` fails: {error}"]
    if best == entry:
        sentence = f"`{config_key(kind)}: auto` takes it if it can do the job: its rank, {rank}, comes first"
        certain = kind in _BY_RANK_ALONE
        return (True if certain else None), [f"{sentence} ({ranked})"]
    sentence = f"`{config_key(kind)}: auto` takes it only where those before it cannot do the job"
    return (False if kind in _BY_RANK_ALONE else None), [
        f"{sentence} (ranks: {ranked}); `vcore config explain` says which can"
    ]
