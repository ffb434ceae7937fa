"""What a model's class makes of its config is what the engine reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vcore.engine.resolve import Resolution
from vcore.errors import PluginBrokenError, UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import ModelSpec

Resolve = Callable[..., Resolution]


@pytest.fixture
def resolve_with(
    resolve_model: Resolve, make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry]
) -> Resolve:
    """Resolves a model of a class whose `complete_config` is the function given."""

    def run(complete: Callable[[HFConfig], Any], **changes: Any) -> Resolution:
        plain = next(entry.spec for entry in make_catalog().entries if entry.name == "llama")
        assert plain is not None

        class Sparse(plain.load):  # type: ignore[misc,name-defined]
            @classmethod
            def complete_config(cls, config: HFConfig) -> Any:
                return complete(config)

        spec = ModelSpec(name="sparse", load=Sparse, api="1.0", architectures=("SparseForCausalLM",))
        using = make_catalog(make_entry(spec))
        return resolve_model(using=using, architectures=["SparseForCausalLM"], **changes)

    return run


def test_keys_that_the_file_lacks(resolve_with: Resolve) -> None:
    defaults = {"vocab_size": 77, "max_position_embeddings": 33, "num_hidden_layers": 2}
    lacking = dict.fromkeys(defaults)
    resolution = resolve_with(lambda config: HFConfig(defaults | config.to_dict()), **lacking)
    assert resolution.hf_config["num_hidden_layers"] == 2
    assert resolution.hf_config.architectures == ("SparseForCausalLM",)
    assert (resolution.vocab_size, resolution.max_model_len) == (77, 33)
    assert resolution.outline is not None
    assert len(resolution.outline.kv_cache_specs) == 2


def test_a_plugin_that_raises_is_broken(resolve_with: Resolve) -> None:
    with pytest.raises(PluginBrokenError, match=r"sparse.*complete_config raised KeyError: 'n_layers'"):
        resolve_with(lambda config: config["n_layers"])


def test_an_answer_that_is_no_config_is_told(resolve_with: Resolve) -> None:
    with pytest.raises(PluginBrokenError, match=r"complete_config returned dict .* expected an HFConfig"):
        resolve_with(lambda config: config.to_dict())


def test_a_refusal_names_the_plugin(resolve_with: Resolve) -> None:
    def refuse(config: HFConfig) -> HFConfig:
        raise UnsupportedModelError("no text in it")

    with pytest.raises(UnsupportedModelError, match="no text in it") as caught:
        resolve_with(refuse)
    assert any("sparse" in note for note in caught.value.__notes__)


def test_a_plugin_that_is_a_function_says_nothing(
    resolve_model: Resolve, make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry]
) -> None:
    plain = next(entry.spec for entry in make_catalog().entries if entry.name == "llama")
    assert plain is not None

    def build(*, options: object, context: object) -> object:
        assert callable(plain.load)
        return plain.load(options=options, context=context)

    spec = ModelSpec(name="built", load=build, api="1.0", architectures=("BuiltForCausalLM",))
    resolution = resolve_model(using=make_catalog(make_entry(spec)), architectures=["BuiltForCausalLM"])
    assert (resolution.model.name, resolution.vocab_size) == ("built", 100)
