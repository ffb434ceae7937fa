"""`schema`: the JSON schema of configuration files, with the options of every plugin that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcore.config.models import PLUGIN_CHOICES, EngineConfig
from vcore.config.plugin_models import OptionsCatalog, choices
from vcore.errors import PluginError

if TYPE_CHECKING:
    from vcore.plugins.entry import CatalogEntry

__all__ = ["schema"]


def schema(catalog: OptionsCatalog) -> dict[str, Any]:
    """The JSON schema (2020-12) of a configuration file. Of the plugins' code, only options models are imported.

    Wherever a plugin is chosen, one of these fits: ``auto`` or a name; ``{name: NAME}``, with the options of
    that plugin. Options of a plugin whose model cannot be imported are left open, with the reason.
    """
    document: dict[str, Any] = EngineConfig.model_json_schema()
    definitions: dict[str, Any] = document.setdefault("$defs", {})
    for path, kind in PLUGIN_CHOICES.items():
        reference = {"$ref": f"#/$defs/choice.{kind}"}
        definitions[f"choice.{kind}"] = _choice(catalog, kind, definitions)
        _replace_choice(_property(document, path), reference)
    definitions.pop("PluginChoice", None)
    for field in document["properties"].values():
        if isinstance(field.get("default"), dict):
            del field["default"]  # a section's defaults stand at its keys
    document["properties"]["$schema"] = {"type": "string", "description": "The schema that editors check this file by."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _property(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of the key `path`."""
    *sections, key = path.split(".")
    node = document
    for section in sections:
        node = document["$defs"][node["properties"][section]["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = node["properties"][key]
    return found


def _replace_choice(field: dict[str, Any], reference: dict[str, str]) -> None:
    """Let `field` refer to the choices of its kind, in place of any `PluginChoice`."""
    if "items" in field:
        field["items"] = reference
        return
    if any(one.get("type") == "null" for one in field.get("anyOf", ())):
        field["anyOf"] = [reference, {"type": "null"}]
        if field.get("default") is not None:
            field["default"] = "auto"
        return
    field.update(reference)
    field["default"] = "auto"


def _choice(catalog: OptionsCatalog, kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """What chooses a plugin of `kind`. The options' own definitions go into `definitions`."""
    names = ["auto"]
    objects = []
    for name, entry in choices(catalog, kind):
        written = [name, f"{name}@{entry.distribution}"]
        names += [item for item in written if item not in names]
        objects.append(_named(catalog, entry, written, definitions))
    bare = {"type": "object", "properties": {"name": {"enum": names}}, "additionalProperties": False}
    return {"description": f"Chooses a plugin of the kind {kind}.", "anyOf": [{"enum": names}, bare, *objects]}


def _named(
    catalog: OptionsCatalog, entry: CatalogEntry, written: list[str], definitions: dict[str, Any]
) -> dict[str, Any]:
    """``{name: NAME, options: {...}}`` for one plugin."""
    return {
        "type": "object",
        "description": entry.spec.summary if entry.spec is not None else "",
        "properties": {"name": {"enum": written}, "options": _options(catalog, entry, definitions)},
        "required": ["name"],
        "additionalProperties": False,
    }


def _options(catalog: OptionsCatalog, entry: CatalogEntry, definitions: dict[str, Any]) -> dict[str, Any]:
    try:
        model = catalog.options_model(entry)
    except PluginError as error:
        return {"type": "object", "description": f"Not known: {error}"}
    if model is None:
        return {"type": "object", "maxProperties": 0, "description": "It takes no options."}
    prefix = f"options.{entry.address.replace('/', '.')}"
    options = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for name, definition in options.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = definition
    definitions[prefix] = options
    return {"$ref": f"#/$defs/{prefix}"}
