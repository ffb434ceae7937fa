"""Which model plugin serves the architecture that a model's ``config.json`` names, and what to do where none does."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from vcore.config import ModelConfig
from vcore.engine.resolve.decisions import Decision
from vcore.engine.resolve.lookup import selector, usable
from vcore.errors import PluginNotFoundError, UnsupportedModelError, VcoreError
from vcore.interfaces.hf_config import HFConfig
from vcore.plugins.catalog import Catalog
from vcore.plugins.complaints import broken_error
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.import_guard import describe_exception
from vcore.plugins.specs import ANY_ARCHITECTURE, ModelSpec, PluginKind
from vcore.plugins.stale_metadata import stale_entry_points

__all__ = ["ChosenModel", "check_quantization", "choose_model", "find_model"]

logger = logging.getLogger(__name__)

_MAX_CLOSEST = 3


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """The model plugin, the options that the configuration has for it, and what it makes of the model's config."""

    entry: CatalogEntry
    hf_config: HFConfig
    """As `Model.complete_config` returned it."""
    options: Mapping[str, Any] = field(default_factory=dict)


def choose_model(config: ModelConfig, hf_config: HFConfig, catalog: Catalog) -> tuple[ChosenModel, Decision | None]:
    """The model plugin: the one that is configured, the one that serves the architecture, or `model.fallback`.

    Raises:
        UnsupportedModelError: no plugin serves it; the message has the closest that are served. Or its weights are
            quantised in a way that the plugin does not list.
        PluginError: the plugin is broken, or several serve it.
    """
    chosen, decision = find_model(config, hf_config, catalog)
    check_quantization(hf_config, chosen.entry)
    return chosen, decision


def find_model(config: ModelConfig, hf_config: HFConfig, catalog: Catalog) -> tuple[ChosenModel, Decision | None]:
    """As `choose_model`, whatever the form of the weights.

    Raises:
        UnsupportedModelError: no plugin serves the architecture, or the plugin refuses the config.
        PluginError: the plugin is broken, or several serve it.
    """
    entry, options, decision = _find_entry(config, hf_config, catalog)
    return ChosenModel(entry, _completed(catalog, entry, hf_config), options), decision


def _find_entry(
    config: ModelConfig, hf_config: HFConfig, catalog: Catalog
) -> tuple[CatalogEntry, Mapping[str, Any], Decision | None]:
    """The plugin, with the options that the configuration has for it."""
    if not config.plugin.is_auto:
        entry = catalog.find(PluginKind.MODEL, config.plugin.name)
        _warn_of_another(entry, hf_config)
        return entry, config.plugin.options, None
    for architecture in hf_config.architectures:
        if architecture == ANY_ARCHITECTURE:
            continue
        try:
            entry = catalog.find_by_key(PluginKind.MODEL, architecture)
        except PluginNotFoundError:
            continue
        decision = Decision(key="model.plugin", value=selector(catalog, entry), why=f"it serves {architecture}")
        return entry, {}, decision
    if config.fallback is None:
        raise _unsupported(hf_config, catalog)
    entry = catalog.find(PluginKind.MODEL, config.fallback.name)
    why = f"model.fallback, for no plugin serves {_names(hf_config) or 'a model without architectures'}"
    decision = Decision(key="model.plugin", value=selector(catalog, entry), why=why)
    return entry, config.fallback.options, decision


def _completed(catalog: Catalog, entry: CatalogEntry, hf_config: HFConfig) -> HFConfig:
    """What the plugin makes of the model's config; a plugin that is a function says nothing."""
    from vcore.interfaces.model import Model

    model = catalog.load(entry)
    if not (isinstance(model, type) and issubclass(model, Model)):
        return hf_config
    try:
        completed: object = model.complete_config(hf_config)
    except VcoreError as error:
        error.add_note(f"raised by {entry.title}")
        raise
    except Exception as error:
        raise broken_error(entry, f"complete_config raised {describe_exception(error)}") from error
    if not isinstance(completed, HFConfig):
        found = f"complete_config returned {type(completed).__name__} {completed!r:.80}"
        raise broken_error(entry, found, expected="an HFConfig")
    return completed


def check_quantization(hf_config: HFConfig, entry: CatalogEntry) -> None:
    """See that the plugin loads weights of the form that the config states.

    Raises:
        UnsupportedModelError: it does not list it.
    """
    settings = hf_config.get("quantization_config")
    if not settings:
        return
    method = str(settings.get("quant_method", "unnamed")) if isinstance(settings, HFConfig) else str(settings)
    served = cast(ModelSpec, entry.spec).quantizations
    if method not in served:
        raise UnsupportedModelError(
            f"{hf_config.origin}: the weights are quantised (quantization_config.quant_method is {method!r}), and "
            f"{entry.address} loads {', '.join(sorted(served)) or 'no quantised weights'}. Use the model's unquantised "
            "checkpoint or a GGUF file of it, or a model plugin that lists the method."
        )


def _warn_of_another(entry: CatalogEntry, hf_config: HFConfig) -> None:
    served = {ANY_ARCHITECTURE, *hf_config.architectures}
    if not served & set(cast(ModelSpec, entry.spec).architectures):
        logger.warning(
            "model.plugin: %s does not list %s, but was named, and is used",
            entry.address,
            _names(hf_config) or "any architecture of this model",
        )


def _names(hf_config: HFConfig) -> str:
    return " or ".join(hf_config.architectures)


def _unsupported(hf_config: HFConfig, catalog: Catalog) -> UnsupportedModelError:
    plugins = usable(catalog, PluginKind.MODEL)
    served = {name: entry.name for entry in plugins for name in cast(ModelSpec, entry.spec).architectures}
    served.pop(ANY_ARCHITECTURE, None)
    known = ", ".join(sorted(served)) or "none"
    if not hf_config.architectures:
        found = f"{hf_config.origin} names no architecture ('architectures')"
    else:
        found = f"no installed model plugin serves the architecture {_names(hf_config)}"
        closest = [f"{name} ({served[name]})" for name in _closest(hf_config.architectures[0], list(served))]
        found += f"; the closest that are served: {', '.join(closest)}" if closest else ""
    return UnsupportedModelError(f"{found}; served are: {known}. {_remedies(plugins)}{_stale_hint()}")


def _closest(name: str, served: Sequence[str]) -> list[str]:
    """The most similar names, without the ending that nearly all of them share."""
    stems: dict[str, str] = {}
    for one in served:  # of several spellings a plugin lists the usual one first
        stems.setdefault(_stem(one), one)
    return [stems[stem] for stem in difflib.get_close_matches(_stem(name), stems, n=_MAX_CLOSEST, cutoff=0.4)]


def _stem(architecture: str) -> str:
    return architecture.removesuffix("ForCausalLM").removesuffix("ForConditionalGeneration").lower()


def _remedies(plugins: Sequence[CatalogEntry]) -> str:
    any_model = [entry.name for entry in plugins if ANY_ARCHITECTURE in cast(ModelSpec, entry.spec).architectures]
    fallback = "".join(f"`model.fallback: {name}` may run it as it is; " for name in any_model)
    return (
        f"What can be done: {fallback}`vcore plugins new model NAME` begins a plugin for it (docs/add_a_model.md says "
        "how to go on; load it with `-p FILE` or install it); where a served architecture is the same but for its "
        "name, model.plugin names that one's plugin."
    )


def _stale_hint() -> str:
    return "".join(f" {stale}." for stale in stale_entry_points() if not stale.is_gone)
