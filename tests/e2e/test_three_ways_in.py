"""A plugin does its work in an engine by each of the three ways in: installed, as a file, as an object.

The plugin is an eviction policy that writes down what it evicts; the model is a tiny one with random weights.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from vcore import LLM, SamplingParams
from vcore.errors import PluginBrokenError, PluginOptionsError
from vcore.testing.distributions import write_distribution

PLUGIN = """
from vcore.config import PluginOptions
from vcore.interfaces.eviction import EvictionPolicy
from vcore.plugins import EvictionPolicySpec, hookimpl

EVICTED = []

class Options(PluginOptions):
    newest_first: bool = False

class NotedEviction(EvictionPolicy):
    def __init__(self, *, options, context):
        self.newest_first = options.newest_first
        self.free = {}
    def on_insert(self, block_ids): ...
    def on_hit(self, block_ids):
        for block_id in block_ids:
            self.free.pop(block_id, None)
    def on_free(self, block_ids):
        self.free.update(dict.fromkeys(block_ids))
    def on_evict(self, block_ids):
        EVICTED.extend(block_ids)
        self.on_hit(block_ids)
    def pick_victims(self, count):
        order = list(self.free)
        return order[::-1][:count] if self.newest_first else order[:count]

@hookimpl
def vcore_eviction_policies():
    return [EvictionPolicySpec(name="noted", load=NotedEviction, api="1.0", options=Options)]
"""

CONFIG = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": True, "model_type": "llama", "architectures": ["LlamaForCausalLM"],
    "eos_token_id": 1,
}  # fmt: skip

MakeLLM = Callable[..., LLM]


@pytest.fixture
def make_llm(tmp_path: Path) -> Iterator[MakeLLM]:
    """Makes an engine over the tiny model, whose cache is so small that blocks are evicted at once."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made: list[LLM] = []

    def make(eviction: object = "noted", plugins: Any = (), **section: object) -> LLM:
        config = {
            "model": {"load_format": "dummy", "skip_tokenizer": True},
            "cache": {"num_blocks": 6, "block_size": 4, "eviction": eviction},
            "runtime": {"device": "cpu"},
            "plugins": section,
        }
        made.append(LLM(model=str(tmp_path), config=config, plugins=plugins, base_dir=tmp_path, progress=False))
        return made[-1]

    yield make
    for llm in made:
        llm.close()
    torch.set_num_threads(threads)


def evict(llm: LLM) -> None:
    """Fill the cache over and over."""
    for start in range(3, 27, 8):
        prompt = {"prompt_token_ids": list(range(start, start + 16))}
        [output] = llm.generate(prompt, SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True))
        assert len(output.outputs[0].token_ids) == 2


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("acme_noted_object", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plugin_file(tmp_path: Path) -> Path:
    """The plugin as one file."""
    path = tmp_path / "noted.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


def test_an_object(make_llm: MakeLLM, plugin_file: Path) -> None:
    module = module_of(plugin_file)
    evict(make_llm(plugins=[module]))
    assert module.EVICTED


def test_a_file_with_options(make_llm: MakeLLM, plugin_file: Path) -> None:
    eviction = {"name": "noted", "options": {"newest_first": True}}
    evict(make_llm(eviction, load=[f"./{plugin_file.name}"]))
    [module] = [one for one in list(sys.modules.values()) if getattr(one, "__file__", None) == str(plugin_file)]
    assert module.EVICTED


def test_an_installed_distribution(make_llm: MakeLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    modules = {"acme_noted.py": PLUGIN}
    write_distribution(site, "acme-noted", entry_points={"noted": "acme_noted"}, modules=modules)
    monkeypatch.syspath_prepend(str(site))
    evict(make_llm("noted@acme-noted", require=["acme-noted"]))
    import acme_noted  # type: ignore[import-not-found]

    assert acme_noted.EVICTED


def test_selected_and_broken_ends_the_start(make_llm: MakeLLM, plugin_file: Path) -> None:
    plugin_file.write_text(PLUGIN.replace("self.free = {}", "raise ValueError('boom')"), encoding="utf-8")
    with pytest.raises(PluginBrokenError, match=r"eviction_policy 'noted' of .*ValueError: boom"):
        make_llm(load=[f"./{plugin_file.name}"])


def test_broken_and_not_selected_does_not(make_llm: MakeLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    write_distribution(site, "acme-broken", entry_points={"x": "acme_broken"}, modules={"acme_broken.py": "1 / 0"})
    monkeypatch.syspath_prepend(str(site))
    evict(make_llm("auto"))


def test_options_that_do_not_fit(make_llm: MakeLLM, plugin_file: Path) -> None:
    with pytest.raises(PluginOptionsError, match="newest_frist"):
        make_llm({"name": "noted", "options": {"newest_frist": True}}, load=[f"./{plugin_file.name}"])
