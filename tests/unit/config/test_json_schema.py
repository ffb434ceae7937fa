"""The JSON schema holds the tree and the options of every plugin, and costs no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from vcore.config import PLUGIN_CHOICES, EngineConfig, PluginChoice, schema
from vcore.config.problems import dotted_keys
from vcore.config.secrets import node_in
from vcore.errors import PluginBrokenError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry, EntryStatus
from vcore.plugins.specs import EvictionPolicySpec, PluginKind


def walk(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(node for item in value.values() for node in walk(item))]
    return [node for item in value for node in walk(item)] if isinstance(value, list) else []


def test_every_choice_of_a_plugin_is_listed_with_its_kind() -> None:
    found = []
    for key in dotted_keys(EngineConfig):
        annotation: Any = EngineConfig
        for part in key.split("."):
            node = node_in(annotation)
            assert node is not None
            annotation = node.model_fields[part].annotation
        if node_in(annotation) is PluginChoice and not key.endswith((".name", ".options")):
            found.append(key)
    found = [key for key in found if key != "executor.name"]
    assert sorted(found) == sorted(PLUGIN_CHOICES)
    assert set(PLUGIN_CHOICES.values()) <= {kind.value for kind in PluginKind}


def test_every_reference_leads_somewhere(catalog: Catalog) -> None:
    document = schema(catalog)
    references = [node["$ref"] for node in walk(document) if isinstance(node.get("$ref"), str)]
    assert references
    for reference in references:
        assert reference.removeprefix("#/$defs/") in document["$defs"]
    assert "PluginChoice" not in document["$defs"]


def test_a_choice_is_a_name_or_a_name_with_its_options(catalog: Catalog) -> None:
    document = schema(catalog)
    field = document["$defs"]["CacheConfig"]["properties"]["eviction"]
    assert field["$ref"] == "#/$defs/choice.eviction_policy"
    assert field["description"] == "The eviction policy of the prefix cache."
    names, bare, *objects = document["$defs"]["choice.eviction_policy"]["anyOf"]
    assert names["enum"] == ["auto", "lru", "lru@vcore-engine", "fifo", "fifo@vcore-engine"]
    assert bare["properties"] == {"name": names}
    lru, fifo = objects
    assert lru["properties"]["name"]["enum"] == ["lru", "lru@vcore-engine"]
    options = document["$defs"][lru["properties"]["options"]["$ref"].removeprefix("#/$defs/")]
    assert options["properties"]["window"]["type"] == "integer"
    assert options["additionalProperties"] is False
    assert fifo["properties"]["options"]["maxProperties"] == 0


def test_loaders_are_chosen_by_format_and_observers_in_a_list(catalog: Catalog) -> None:
    document = schema(catalog)
    formats = document["$defs"]["choice.weight_loader"]["anyOf"][0]["enum"]
    assert formats == ["auto", "safetensors", "safetensors@vcore-engine"]
    observers = document["$defs"]["ObservabilityConfig"]["properties"]["observers"]
    assert observers["items"] == {"$ref": "#/$defs/choice.observer"}


def test_options_with_nested_models_and_secrets_are_whole(catalog: Catalog) -> None:
    document = schema(catalog)
    options = document["$defs"]["options.observer.telemetry@vcore-engine"]["properties"]
    assert options["token"]["format"] == "password"
    assert options["login"]["$ref"] == "#/$defs/options.observer.telemetry@vcore-engine.Login"


def test_the_schema_itself_may_be_named(catalog: Catalog) -> None:
    document = schema(catalog)
    assert document["$schema"].endswith("2020-12/schema")
    assert document["properties"]["$schema"]["type"] == "string"
    assert document["additionalProperties"] is False


def test_broken_plugins_are_left_out_and_broken_options_left_open(
    make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*, options: object, context: object) -> None: ...

    broken = make_entry(EvictionPolicySpec(name="gone", load=never, api="1.0"), status=EntryStatus.BROKEN)
    unreadable = make_entry(EvictionPolicySpec(name="odd", load=never, api="1.0", options="no.such.module:Options"))
    catalog = make_catalog([broken, unreadable])
    with pytest.raises(PluginBrokenError):
        catalog.options_model(unreadable)
    anyof = schema(catalog)["$defs"]["choice.eviction_policy"]["anyOf"]
    assert "gone" not in anyof[0]["enum"]
    assert "odd" in anyof[0]["enum"]
    assert "Not known" in anyof[-1]["properties"]["options"]["description"]


def test_schema_and_show_import_no_torch() -> None:
    script = (
        "import sys\n"
        "from vcore.config import dump, load_config, schema\n"
        "from vcore.plugins.discovery import discover\n"
        "config = load_config()\n"
        "catalog = discover(config.plugins)\n"
        "schema(catalog), dump(config, catalog)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'gguf'}))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
