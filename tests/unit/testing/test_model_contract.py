"""The contract of models as a stranger uses it: it passes a right plugin in a file, and fails wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from vcore.layers import WeightMap
from vcore.testing import TinyCheckpoint
from vcore.testing.wrong_weight_maps import wrong_weight_maps

_PLUGIN = """
from typing import ClassVar

from vcore.layers import AttentionBlock, CausalLM, DecoderLayer, GatedMLP, Heads, NormStyle, RotaryEmbedding, WeightMap
from vcore.plugins import ModelSpec, hookimpl


class Mine(CausalLM):
    weight_map: ClassVar[WeightMap] = WeightMap(
        stacked={"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")},
        rename={"self_attn.norm.": "input_layernorm.", "mlp.norm.": "post_attention_layernorm."},
    )

    def __init__(self, *, options, context):
        config, norms, heads = context.config, NormStyle(eps=1e-6), Heads.from_config(context.config)
        sizes = {"hidden_size": config.hidden_size, "norms": norms}

        def make_layer(index):
            return DecoderLayer(
                AttentionBlock(
                    context, index, num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads,
                    head_dim=heads.head_dim, scale=heads.head_dim**-0.5, **sizes,
                ),
                GatedMLP(context, intermediate_size=config.intermediate_size, **sizes),
            )

        rotary = RotaryEmbedding(context, heads.head_dim)
        super().__init__(context, make_layer=make_layer, norms=norms, rotary=rotary)


@hookimpl
def vcore_models():
    return [ModelSpec(name="mine", load=Mine, api="1.0", architectures=("MineForCausalLM",))]
"""

_CASES = """
from pathlib import Path

from vcore.testing import ModelContract


class TestMine(ModelContract):
    model_type = "llama"
    architecture = "MineForCausalLM"
    plugins = (Path(__file__).with_name("mine.py"),)
"""

_MISTAKES = {
    "gate-up": ('("gate_proj", "up_proj")', '("up_proj", "gate_proj")'),
    "norms": (
        '"input_layernorm.", "mlp.norm.": "post_attention_layernorm."',
        '"post_attention_layernorm.", "mlp.norm.": "input_layernorm."',
    ),
    "scale": ("head_dim**-0.5", "head_dim**-0.4"),
    "eps": ("eps=1e-6", "eps=1e-2"),
    "rotary": ("RotaryEmbedding(context, heads.head_dim)", "RotaryEmbedding(context, heads.head_dim, True)"),
    "window": ("scale=heads", "sliding_window=13, scale=heads"),
}


class Outcomes:
    """A pytest plugin that keeps which tests passed and which did not."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("::")[2]
        if report.failed:
            self.failed.add(name)
        elif report.when == "call" and report.passed:
            self.passed.add(name)


def _run(folder: Path, plugin: str, *, chosen: str = "", more: str = "") -> Outcomes:
    (folder / "mine.py").write_text(plugin, encoding="utf-8")
    cases = folder / f"test_in_{folder.name}.py"  # a name of its own, by which modules are known
    cases.write_text(_CASES + more, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    outcomes = Outcomes()
    without = [f"-pno:{name}" for name in ("cacheprovider", "xdist", "terminal")]
    pytest.main([str(cases), "--import-mode=importlib", "-k", chosen, *without], plugins=[outcomes])
    return outcomes


def test_a_right_plugin_in_a_file_passes(tmp_path: Path):
    outcomes = _run(tmp_path, _PLUGIN)
    assert not outcomes.failed
    assert len(outcomes.passed) == 16


@pytest.mark.parametrize("mistake", _MISTAKES)
def test_a_wrong_plugin_fails(tmp_path: Path, mistake: str):
    right, wrong = _MISTAKES[mistake]
    assert right in _PLUGIN
    outcomes = _run(tmp_path, _PLUGIN.replace(right, wrong), chosen="whole_prompt or mixed_batch or alone")
    assert len(outcomes.failed) == 6
    assert not outcomes.passed


def test_a_tensor_that_does_not_matter_is_found(tmp_path: Path):
    """With weights that small, what is projected up is projected down to nothing."""
    outcomes = _run(tmp_path, _PLUGIN, chosen="every_tensor", more="    weight_scale = 1e-7\n")
    assert outcomes.failed == {"test_every_tensor_counts"}


def test_wrong_maps_exchange_two_names():
    right = WeightMap(
        stacked={"qkv": ("q", "k", "v"), "gate_up": ("gate", "up"), "joined": ("joined",)},
        rename={"attn.norm.": "first.", "mlp.norm.": "second."},
        ignored=("*.inv_freq",),
    )
    wrong = dict(wrong_weight_maps(right))
    assert [weight_map.stacked["qkv"] for weight_map in wrong.values()].count(("q", "v", "k")) == 1
    assert [weight_map.stacked["gate_up"] for weight_map in wrong.values()].count(("up", "gate")) == 1
    exchanged = {"attn.norm.": "second.", "mlp.norm.": "first."}
    assert [weight_map.rename for weight_map in wrong.values()].count(exchanged) == 1
    assert len(wrong) == 3
    assert {weight_map.ignored for weight_map in wrong.values()} == {right.ignored}


def _llama(**changes: object) -> LlamaConfig:
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    return LlamaConfig(**(sizes | {"num_attention_heads": 2, "num_key_value_heads": 1} | changes))


def test_a_tiny_checkpoint_is_what_its_files_say(tmp_path: Path):
    tiny = TinyCheckpoint(_llama(tie_word_embeddings=True, attention_bias=True), tmp_path)
    assert tiny.config.architectures == ("LlamaForCausalLM",)
    assert "lm_head.weight" not in tiny.tensors
    assert torch.equal(tiny.tensors["model.embed_tokens.weight"], tiny.reference.lm_head.weight)
    assert tiny.tensors["model.norm.weight"].mean() > 0.5  # around the one that it is initialised to
    assert tiny.tensors["model.layers.0.self_attn.k_proj.bias"].std() > 0.1
    tokens = tiny.greedy_tokens(tiny.prompt(5), 3)
    assert tokens[0] == tiny.logits(tiny.prompt(5))[-1].argmax()
    assert len(tokens) == 3


def test_a_tiny_checkpoint_depends_on_its_seed_alone(tmp_path: Path):
    first, same, other = (
        TinyCheckpoint(_llama(), tmp_path / name, seed=seed, architecture="Mine")
        for name, seed in (("first", 0), ("same", 0), ("other", 1))
    )
    assert first.config.architectures == ("Mine",)
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, same.tensors[name])
        assert not torch.equal(tensor, other.tensors[name])
    assert first.prompt(9) == other.prompt(9) != first.prompt(9, seed=1)
