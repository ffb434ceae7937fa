"""`resolve` as a whole: no auto is left, every decision has a reason, the configuration comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vcore.config import EngineConfig, PluginChoice, load_config
from vcore.config.problems import dotted_keys
from vcore.engine.resolve import Resolution, resolve, resolved_plugins
from vcore.errors import ConfigError, PluginNotFoundError, PluginOptionsError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import EvictionPolicySpec, LogitsProcessorSpec

Resolve = Callable[..., Resolution]

LATER = ["cache.num_blocks", "chat.tool_parser", "chat.reasoning_parser", "simulation.routing"]
"""The keys that resolving leaves at auto."""


def autos(config: EngineConfig) -> list[str]:
    """The keys that still say auto."""
    found = []
    for key in dotted_keys(config.__class__):
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if value == PluginChoice() or (value == "auto" and not key.endswith(".name")):
            found.append(key)
    return found


def test_no_auto_is_left_but_what_is_known_only_later(resolve_model: Resolve) -> None:
    resolution = resolve_model({"runtime.device": "auto"})
    assert autos(resolution.config) == LATER
    assert len(autos(EngineConfig())) > 10


def test_every_auto_has_a_decision_in_the_order_of_the_tree(resolve_model: Resolve) -> None:
    resolution = resolve_model({"runtime.device": "auto"})
    keys = [decision.key for decision in resolution.decisions]
    assert set(keys) == set(autos(EngineConfig())) | {"model.path"}
    assert keys == sorted(keys, key=dotted_keys(EngineConfig).index)
    assert all(decision.why for decision in resolution.decisions)


def test_what_is_written_is_not_decided(resolve_model: Resolve) -> None:
    settings = {
        "model.source": "local",
        "model.plugin": "llama",
        "model.load_format": "safetensors",
        "model.dtype": "float16",
        "model.max_model_len": 64,
        "model.pooling": "none",
        "attention.backend": "plain",
        "cache.block_size": 8,
        "cache.num_blocks": 5,
        "cache.eviction": "lru",
        "scheduler.policy": "priority",
        "scheduler.max_num_seqs": 4,
        "scheduler.max_num_batched_tokens": 32,
        "sampling.structured_output": "none",
        "chat.tool_parser": "none",
        "chat.reasoning_parser": "none",
        "executor": "multiproc",
        "runtime.num_threads": 1,
        "runtime.async_scheduling": True,
        "observability.observers": ["counter"],
        "simulation.routing": "round_robin",
    }
    resolution = resolve_model(settings)
    assert [decision.key for decision in resolution.decisions] == ["model.path"]
    assert resolution.config == load_config(resolution.config, settings)
    assert (resolution.max_model_len, resolution.block_size) == (64, 8)
    assert (resolution.max_num_seqs, resolution.max_num_batched_tokens) == (4, 32)
    assert resolution.scheduling.name == "priority"
    assert resolution.executor.name == "multiproc"
    assert [entry.name for entry in resolution.observers] == ["counter"]


def test_the_objects_are_those_of_the_model(resolve_model: Resolve) -> None:
    resolution = resolve_model()
    assert resolution.device == torch.device("cpu")
    assert resolution.dtype is torch.float32
    assert resolution.vocab_size == 100
    assert resolution.eos_token_ids == (7, 8)
    assert resolution.generation_config["temperature"] == 0.6
    assert resolution.hf_config.architectures == ("LlamaForCausalLM",)
    assert resolution.model.name == "llama"
    assert resolution.loader_entry.name == "safetensors"
    assert resolution.kv_bytes_per_token == 3 * 2 * 2 * 16 * 4


def test_resolving_again_changes_nothing(resolve_model: Resolve, catalog: Catalog) -> None:
    once = resolve_model()
    again = resolve(once.config, catalog)
    assert again.config == once.config
    assert {decision.key for decision in again.decisions} == {"model.path", *LATER}


class TestStructuredOutput:
    @staticmethod
    def spec(name: str, *forms: str, rank: int = 0) -> LogitsProcessorSpec:
        def never(*, options: object, context: object) -> None: ...

        return LogitsProcessorSpec(name=name, load=never, api="1.0", structured_output=frozenset(forms), rank=rank)

    def test_the_highest_rank_of_those_that_enforce_forms_is_taken(
        self, make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry], resolve_model: Resolve
    ) -> None:
        specs = [self.spec("first"), self.spec("second", "regex"), self.spec("third", "regex", rank=1)]
        resolution = resolve_model(using=make_catalog(*map(make_entry, specs)))
        assert resolution.structured_output is not None
        assert resolution.structured_output.name == "third"
        assert resolution.config.sampling.structured_output == PluginChoice(name="third")
        [decision] = [one for one in resolution.decisions if one.key == "sampling.structured_output"]
        assert decision.rejected[0][0].startswith("logits_processor/second")

    def test_there_may_be_none(self, resolve_model: Resolve) -> None:
        resolution = resolve_model()
        assert resolution.structured_output is None
        assert resolution.config.sampling.structured_output is None

    def test_one_that_enforces_nothing_is_refused(
        self, make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry], resolve_model: Resolve
    ) -> None:
        catalog = make_catalog(make_entry(self.spec("plain")))
        with pytest.raises(ConfigError, match=r"sampling\.structured_output: .*plain.* enforces no form"):
            resolve_model({"sampling.structured_output": "plain"}, using=catalog)


def test_a_name_that_two_distributions_bear_is_written_with_its_own(
    make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry], resolve_model: Resolve
) -> None:
    def never(*, options: object, context: object) -> None: ...

    other = make_entry(EvictionPolicySpec(name="lru", load=never, api="1.0", rank=99), distribution="acme")
    catalog = make_catalog(other)
    resolution = resolve_model(using=catalog)
    assert resolution.config.cache.eviction.name == "lru@vcore-engine"
    assert resolve(resolution.config, catalog).eviction == resolution.eviction


def test_the_tokenizer(resolve_model: Resolve, tmp_path: Path) -> None:
    own = resolve_model()
    assert own.tokenizer_path == own.model_path / "own-tokenizer"
    assert resolve_model({"model.skip_tokenizer": True}).tokenizer_path is None
    (tmp_path / "tok").mkdir()
    assert resolve_model({"model.tokenizer": str(tmp_path / "tok")}).tokenizer_path == tmp_path / "tok"
    for absent in ("nowhere", "~no-such-user/tok", "a" * 5000):
        with pytest.raises(ConfigError, match=rf"model\.tokenizer: there is no folder '{absent}'"):
            resolve_model({"model.tokenizer": absent})


def test_a_relative_tokenizer_is_looked_for_beside_the_file(
    write_model: Callable[..., Path], catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "conf" / "tok").mkdir(parents=True)
    config = load_config({"model.path": str(write_model()), "model.tokenizer": "tok", "runtime.device": "cpu"})
    resolution = resolve(config, catalog, base_dir=tmp_path / "conf")
    assert resolution.tokenizer_path == tmp_path / "conf" / "tok"
    assert resolution.config.model.tokenizer == str(tmp_path / "conf" / "tok")


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"cache.eviction": {"name": "lru", "options": {"windw": 3}}}, PluginOptionsError, "did you mean 'window'"),
        ({"cache.eviction": "lur"}, PluginNotFoundError, "did you mean 'lru'"),
        ({"observability.observers": ["auto"]}, ConfigError, r"observers\[0\]: found 'auto'"),
        ({"scheduler.max_num_seqs": 9, "scheduler.max_num_batched_tokens": 8}, ConfigError, "max_num_batched_tokens=8"),
        ({"runtime.device": "gpu"}, ConfigError, "found 'gpu', expected a torch device"),
    ],
)
def test_what_needs_no_model_is_refused_before_it_is_fetched(
    catalog: Catalog, shelf: list[tuple[str, bool]], settings: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        resolve(load_config({"model.path": "tiny-model"} | settings), catalog)
    assert shelf == []


def test_the_selected_plugins_as_data(resolve_model: Resolve, catalog: Catalog) -> None:
    resolution = resolve_model({"cache.eviction": {"name": "lru", "options": {"window": 5}}})
    plugins = {plugin.kind: plugin for plugin in resolved_plugins(resolution, catalog).plugins}
    others = {"model_source", "weight_loader", "attention_backend", "scheduling_policy", "executor"}
    assert set(plugins) == others | {"model", "eviction_policy"}
    assert plugins["eviction_policy"].options == {"window": 5}
    assert plugins["model"].version == "1.0"
