"""The model plugin by the architecture that config.json names, and what happens where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vcore.config import EngineConfig, PluginOptions, load_config
from vcore.engine.resolve import Resolution, resolve
from vcore.errors import (
    ConfigError,
    PluginBrokenError,
    PluginNotFoundError,
    PluginOptionsError,
    UnsupportedModelError,
)
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry, EntryStatus
from vcore.plugins.specs import ModelSpec
from vcore.plugins.stale_metadata import StaleEntryPoint

Resolve = Callable[..., Resolution]


def never(*, options: object, context: object) -> None: ...


def test_the_architecture_chooses_the_model_plugin(
    resolve_model: Resolve, decided: Callable[..., dict[str, Any]]
) -> None:
    resolution = resolve_model(architectures=["UnknownForCausalLM", "MistralForCausalLM"])
    assert resolution.model.name == "llama"
    assert decided(resolution)["model.plugin"].why == "it serves MistralForCausalLM"


def test_an_unsupported_architecture_is_told_with_the_closest_and_what_can_be_done(resolve_model: Resolve) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        resolve_model(architectures=["Llama2ForCausalLM"])
    message = str(caught.value)
    assert "serves the architecture Llama2ForCausalLM; the closest that are served: LlamaForCausalLM (llama)" in message
    assert "served are: LatentForCausalLM, LlamaForCausalLM, MistralForCausalLM" in message
    assert "`vcore plugins new model NAME`" in message
    assert "docs/add_a_model.md" in message
    assert "`-p FILE`" in message
    assert "model.fallback" not in message  # nothing here takes any architecture


@pytest.fixture
def with_anything(make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry]) -> Catalog:
    """The catalog, and a plugin for whatever it is given."""
    load = next(entry for entry in make_catalog().entries if entry.name == "llama").spec
    assert load is not None
    spec = ModelSpec(name="anything", load=load.load, api="1.0", architectures=("*",), options=Depth)
    return make_catalog(make_entry(spec))


class Depth(PluginOptions):
    depth: int = 1


def test_a_plugin_for_anything_is_offered_and_never_taken_unasked(
    resolve_model: Resolve, with_anything: Catalog
) -> None:
    for architectures in (["NewForCausalLM"], ["*"], None):
        with pytest.raises(UnsupportedModelError, match=r"`model\.fallback: anything` may run it") as caught:
            resolve_model(using=with_anything, architectures=architectures)
        assert "served are: LatentForCausalLM" in str(caught.value)


def test_the_fallback_takes_what_nobody_serves(
    resolve_model: Resolve, with_anything: Catalog, decided: Callable[..., dict[str, Any]]
) -> None:
    settings = {"model.fallback": {"name": "anything", "options": {"depth": 3}}}
    resolution = resolve_model(settings, using=with_anything, architectures=["NewForCausalLM"])
    assert resolution.model.name == "anything"
    decision = decided(resolution)["model.plugin"]
    assert (decision.value, decision.why) == ("anything", "model.fallback, for no plugin serves NewForCausalLM")
    assert resolution.config.model.plugin.name == "anything"
    assert resolution.config.model.plugin.options == {"depth": 3}
    again = resolve(resolution.config, with_anything)
    assert (again.model.name, again.config) == ("anything", resolution.config)
    assert resolve_model(settings, using=with_anything).model.name == "llama"


def test_a_plugin_for_anything_that_is_named_is_used_without_a_warning(
    resolve_model: Resolve, with_anything: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    assert resolve_model({"model.plugin": "anything"}, using=with_anything).model.name == "anything"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("fallback", "error", "match"),
    [
        ("anythin", PluginNotFoundError, "did you mean 'anything'"),
        ({"name": "anything", "options": {"dept": 3}}, PluginOptionsError, "did you mean 'depth'"),
    ],
)
def test_a_fallback_that_cannot_be_is_told_before_it_is_needed(
    resolve_model: Resolve, with_anything: Catalog, fallback: object, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        resolve_model({"model.fallback": fallback}, using=with_anything)


def test_no_fallback_can_be_written() -> None:
    assert load_config({"model.fallback": "none"}) == load_config({"model.fallback": None}) == EngineConfig()
    with pytest.raises(ConfigError, match=r"model\.fallback: 'auto' chooses nothing here"):
        load_config({"model.fallback": "auto"})


def test_an_entry_point_that_stale_metadata_misses_is_hinted_at(
    resolve_model: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = [
        StaleEntryPoint(distribution="acme", name=name, value="acme.plugin", folder=Path("/src"), is_gone=is_gone)
        for name, is_gone in (("fresh", False), ("old", True))
    ]
    monkeypatch.setattr("vcore.engine.resolve.model_plugin.stale_entry_points", lambda: stale)
    with pytest.raises(UnsupportedModelError, match="run `pip install --no-deps --editable /src`") as caught:
        resolve_model(architectures=["NewForCausalLM"])
    assert "fresh" in str(caught.value)
    assert "old" not in str(caught.value)


def test_a_config_without_architectures_is_told(resolve_model: Resolve) -> None:
    with pytest.raises(UnsupportedModelError, match=r"config\.json names no architecture"):
        resolve_model(architectures=None)


def test_a_broken_model_plugin_is_fatal_and_named(
    make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry], resolve_model: Resolve
) -> None:
    spec = ModelSpec(name="qwen", load=never, api="1.0", architectures=("QwenForCausalLM",))
    catalog = make_catalog(make_entry(spec, status=EntryStatus.BROKEN))
    with pytest.raises(PluginBrokenError, match="broken for a test"):
        resolve_model(using=catalog, architectures=["QwenForCausalLM"])
    assert resolve_model(using=catalog).model.name == "llama"


def test_a_named_model_plugin_serves_another_architecture_with_a_warning(
    resolve_model: Resolve, caplog: pytest.LogCaptureFixture
) -> None:
    resolution = resolve_model({"model.plugin": "llama"}, architectures=["AlmostLlamaForCausalLM"])
    assert resolution.model.name == "llama"
    assert "does not list AlmostLlamaForCausalLM" in caplog.text


def test_quantised_weights_that_no_plugin_lists_are_refused_before_loading(resolve_model: Resolve) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"quant_method is 'awq'\), and model/.* loads no quantised weights"
    ):
        resolve_model(quantization_config={"quant_method": "awq", "bits": 4})
    assert resolve_model(quantization_config={}).model.name
