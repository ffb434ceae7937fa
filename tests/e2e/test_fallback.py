"""Architectures that no plugin serves, run by transformers' own modules over the paged cache: `model.fallback`.

Each case is held to the contract of model plugins, through the file formats and the engine that users have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from vcore_model_zoo.transformers_fallback.model import TransformersModel

from vcore import LLM, SamplingParams
from vcore.config import load_config
from vcore.engine.model_check import check_model
from vcore.errors import ConfigError, UnsupportedModelError, WeightsError
from vcore.interfaces.model import Model
from vcore.interfaces.weights import CheckpointReader, TensorInfo
from vcore.plugins import Catalog, CatalogEntry, PluginKind, discover
from vcore.testing import ModelContract, ModelDriver, TinyCheckpoint

FALLBACK = {"model.fallback": "transformers", "model.skip_tokenizer": True, "runtime.device": "cpu"}


class Swapped(CheckpointReader):
    """A checkpoint in which two tensors bear each other's names."""

    def __init__(self, checkpoint: CheckpointReader, one: str, other: str) -> None:
        self._checkpoint = checkpoint
        self._names = {one: other, other: one}

    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._checkpoint.tensors()

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        return self._checkpoint.read(self._names.get(name, name), shape, index)


class Fallback(ModelContract):
    """A case of an architecture that only the fallback serves."""

    test_several_ranks_give_what_one_gives = None  # it does not split
    test_every_tensor_counts = None  # reading them is transformers' affair; converting them is tested below
    swapped: tuple[str, str]
    """Names of two tensors of one shape that must not be taken for each other."""
    missing = "1 missing: .*weight"
    """What is told when the first of them is not there."""
    plain = "model.norm.weight"
    """A tensor that is not converted."""

    @classmethod
    def wrong_models(cls, model: Callable[..., Model]) -> Iterator[tuple[str, Callable[..., Model]]]:
        class Wrong(TransformersModel):
            def load_weights(self, checkpoint: CheckpointReader) -> None:
                super().load_weights(Swapped(checkpoint, *cls.swapped))

        yield f"{' and '.join(cls.swapped)} swapped", Wrong

    @pytest.fixture(scope="class")
    @classmethod
    def entry(cls, catalog: Catalog) -> CatalogEntry:
        return catalog.find(PluginKind.MODEL, "transformers")

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tiny: TinyCheckpoint) -> Iterator[LLM]:
        """As a user would have it who only names the fallback."""
        tree = FALLBACK | {
            "cache": {"block_size": 4, "num_blocks": 200},
            "scheduler": {"max_num_batched_tokens": 17, "max_num_seqs": 8},
        }
        with LLM(str(tiny.folder), config=tree, progress=False, **{"model.pooling": "mean"}) as llm:
            yield llm

    def test_a_missing_or_surplus_tensor_is_named(  # type: ignore[override]  # not on `meta`: names are converted
        self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver]
    ) -> None:
        missing = self.swapped[0]
        with pytest.raises(WeightsError, match=self.missing):
            driver(tensors={name: tensor for name, tensor in tiny.tensors.items() if name != missing})
        with pytest.raises(WeightsError, match=r"1 surplus: never_heard_of\.weight"):
            driver(tensors={**tiny.tensors, "never_heard_of.weight": torch.zeros(1)})
        with pytest.raises(WeightsError, match=r"1 of another shape: .*model \[.*checkpoint \[7\]"):
            driver(tensors={**tiny.tensors, self.plain: torch.zeros(7)})


class TestGPTNeoX(Fallback):
    """Joined queries, keys and values, partial rotary angles, a parallel feed-forward network."""

    model_type = "gpt_neox"
    swapped = ("gpt_neox.layers.0.attention.dense.weight", "gpt_neox.layers.1.attention.dense.weight")
    plain = "gpt_neox.final_layer_norm.weight"


class TestGPT2(Fallback):
    """Learned positions, matrices that stand on their side, a tied head."""

    model_type = "gpt2"
    swapped = ("transformer.h.0.attn.c_proj.weight", "transformer.h.1.attn.c_proj.weight")
    plain = "transformer.ln_f.weight"


class TestStarcoder2(Fallback):
    """A sliding window in every layer, biases, layer norms."""

    model_type = "starcoder2"
    overrides = {"sliding_window": 9, "use_bias": True}
    swapped = ("model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight")


class TestCohere2(Fallback):
    """Layers with and without a window, and without positions; logits are scaled, the head is tied."""

    model_type = "cohere2"
    overrides = {"sliding_window": 9, "num_hidden_layers": 4, "head_dim": 8, "logit_scale": 3.0}
    swapped = ("model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight")


class TestPhi(Fallback):
    """Partial rotary angles, norms of queries and keys, a head with a bias."""

    model_type = "phi"
    overrides = {"qk_layernorm": True, "num_key_value_heads": 6}
    plain = "model.final_layernorm.weight"
    swapped = ("model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight")


class TestOlmoe(Fallback):
    """Experts that the files have one by one, and the modules joined."""

    model_type = "olmoe"
    overrides = {"num_experts": 4, "num_experts_per_tok": 3, "intermediate_size": 24}
    missing = r"(?s)could not load the checkpoint into OlmoeForCausalLM.*mlp\.experts\.gate_up_proj"
    swapped = ("model.layers.0.mlp.experts.0.up_proj.weight", "model.layers.0.mlp.experts.1.up_proj.weight")
    test_every_tensor_counts = ModelContract.test_every_tensor_counts


# What is refused, and when


def write_config(folder: Path, model_type: str, **changes: Any) -> str:
    """A folder with config.json alone."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}
    config = AutoConfig.for_model(model_type, **sizes, **changes)
    name = AutoModelForCausalLM._model_mapping[type(config)].__name__
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": [name]}), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("stablelm", "does not hand the keyword arguments of its forward on to attention"),
        ("gptj", "GPTJForCausalLM cannot run over a paged cache: it computes attention itself"),
        ("gpt_oss", "attention of layer 0 gets s_aux, which vcore's attention does not take"),
        ("diffllama", "layer 0 computes attention twice, and has only one cache"),
        ("bert", "attention of layer 0 is not causal"),
        ("mamba", "it keeps a state beside, or instead of, the keys and values of attention"),
    ],
)
def test_what_the_interface_does_not_allow_is_refused_before_loading(
    tmp_path: Path, model_type: str, reason: str
) -> None:
    path = write_config(tmp_path, model_type)
    report = check_model(load_config({"model.path": path} | FALLBACK), discover(load_config().plugins))
    assert report.weights == "missing"
    assert reason in report.reasons[0]
    tree = FALLBACK | {"model.load_format": "dummy"}
    with pytest.raises(UnsupportedModelError, match=reason):
        LLM(path, config=tree, progress=False)


def test_without_the_fallback_it_is_named_as_a_remedy(tmp_path: Path) -> None:
    path = write_config(tmp_path, "gpt_neox")
    with pytest.raises(UnsupportedModelError, match=r"`model\.fallback: transformers` may run it"):
        LLM(path, config={"model.load_format": "dummy", "runtime.device": "cpu"}, progress=False)


def test_made_up_weights_run(tmp_path: Path) -> None:
    path = write_config(tmp_path, "gpt_neox", max_position_embeddings=64)
    tree = FALLBACK | {"model.load_format": "dummy", "cache.num_blocks": 20}
    with LLM(path, config=tree, progress=False) as llm:
        [output] = llm.generate([[1, 2, 3]], SamplingParams(temperature=0.0, max_tokens=5), use_tqdm=False)
    assert len(output.outputs[0].token_ids) == 5


def test_names_that_transformers_would_convert_are_not_called_a_misfit(tmp_path: Path) -> None:
    """By headers alone it is not known what becomes of them."""
    told = {}
    for model_type in ("gpt2", "olmoe"):
        folder = tmp_path / model_type
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}
        AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes)).save_pretrained(folder)
        report = check_model(load_config({"model.path": str(folder)} | FALLBACK), discover(load_config().plugins))
        assert report.reasons == []
        assert report.plugin == "model/transformers@vcore-engine"
        assert f"{report.plugin} is taken by model.fallback, for no plugin serves" in report.notes[0]
        told[model_type] = report.weights
    assert told == {"gpt2": "fit", "olmoe": "unknown"}


def test_a_served_architecture_can_be_given_to_it(tmp_path: Path) -> None:
    """To compare a plugin with transformers' own modules."""
    path = write_config(tmp_path, "llama", max_position_embeddings=64)
    tokens = []
    for plugin in ("llama", "transformers"):
        tree = FALLBACK | {"model.plugin": plugin, "model.load_format": "dummy", "cache.num_blocks": 20}
        with LLM(path, config=tree, progress=False) as llm:
            [output] = llm.generate([[1, 2, 3]], SamplingParams(temperature=0.0, max_tokens=8), use_tqdm=False)
        tokens.append(output.outputs[0].token_ids)
    assert tokens[0] == tokens[1]


def test_lengths_at_which_requests_would_change_each_other_are_refused(tmp_path: Path) -> None:
    scaling = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    path = write_config(tmp_path, "starcoder2", max_position_embeddings=32, rope_parameters=scaling)
    tree = FALLBACK | {"model.load_format": "dummy", "cache.num_blocks": 20}
    with pytest.raises(ConfigError, match=r"found 128, .* exceeds 32 tokens\. Set model\.max_model_len to 32"):
        LLM(path, config=tree, progress=False)
    LLM(path, config=tree | {"model.max_model_len": 32}, progress=False).close()
