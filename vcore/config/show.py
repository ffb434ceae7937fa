"""`dump`: a configuration as plain data for people to read, with every secret masked."""

from __future__ import annotations

from typing import Any

from vcore.config.models import PLUGIN_CHOICES, EngineConfig
from vcore.config.plugin_models import OptionsCatalog, model_for
from vcore.config.secrets import mask, mask_unknown

__all__ = ["dump"]


def dump(config: EngineConfig, catalog: OptionsCatalog | None = None) -> dict[str, Any]:
    """`config` as nested dictionaries of what JSON holds, defaults included.

    A choice of a plugin without options is its name alone. Options are shown as they were written:
    ``${env:NAME}`` stays as it is, and other values of secret fields are masked.

    Args:
        config: what to show.
        catalog: tells which options are secrets. Without it, or for a plugin that is not in it, every
            value of its options is masked.
    """
    tree: dict[str, Any] = config.model_dump(mode="json")
    for path, kind in PLUGIN_CHOICES.items():
        *parents, last = path.split(".")
        holder = tree
        for part in parents:
            holder = holder[part]
        value = holder[last]
        if isinstance(value, list):
            holder[last] = [_choice(item, kind, catalog) for item in value]
        else:
            holder[last] = _choice(value, kind, catalog)
    return tree


def _choice(value: dict[str, Any] | None, kind: str, catalog: OptionsCatalog | None) -> Any:
    if value is None:
        return None
    name, options = value["name"], value["options"]
    if not options:
        return name
    model = model_for(catalog, kind, name) if catalog is not None else None
    return {"name": name, "options": mask_unknown(options) if model is None else mask(options, model)}
