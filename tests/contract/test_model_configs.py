"""Configs with values that cannot be: every model refuses them by name, or has nothing to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from vcore_backends.torch_sdpa.backend import TorchSDPABackend

from vcore.config import PluginsConfig
from vcore.engine.resolve.hf_values import check_values
from vcore.errors import UnsupportedModelError, VcoreError, WeightsError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import Model
from vcore.plugins import Catalog, PluginKind, discover
from vcore.testing import MemoryCheckpoint, ModelCase, ModelDriver, TinyCheckpoint

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 6,
    "q_lora_rank": 20,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
}
MODEL_TYPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"use_sliding_window": True},
    "qwen3": {"use_sliding_window": True},
    "phi3": {},
    "olmo2": {},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 20, "use_sliding_window": True},
    "qwen3_moe": EXPERTS | {"use_sliding_window": True},
    "deepseek_v2": LATENT | {"topk_method": "group_limited_greedy"},
    "deepseek_v3": LATENT | {"moe_layer_freq": 1, "num_nextn_predict_layers": 1},
}
"""With what a case of each needs beside the tiny defaults."""
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
MUST_BE_REFUSED: dict[str, Sequence[Any]] = {
    **dict.fromkeys(SIZES, (0, -1, 7, 10**9, 2**40, "48", 3.5, True, [48], {})),
    "max_position_embeddings": (-1, 2**40, "64", 3.5, True),
    "rms_norm_eps": ("small", [1], {}, True, -1e-6, float("nan"), float("inf")),
    "hidden_act": ("spiral", "gelu", None, [], {}, 3),
    "rope_parameters": (
        *([1], "default", 3),
        *({"rope_type": value} for value in ("spiral", "linear", "dynamic", "llama3", "longrope")),
        *({"rope_type": "linear", "factor": value} for value in ("2", [2], True)),
        *({"rope_theta": value} for value in (-1, True, [1], {}, "big")),
        *({"partial_rotary_factor": value} for value in (-1, 1e-9, 2, "half", [1])),
    ),
}
MUST_BE_REFUSED |= dict.fromkeys(
    (
        *("num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size"),
        *("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
        *("n_routed_experts", "n_group", "topk_group", "q_lora_rank"),
    ),
    (-1, 7, 2**40, "48", 3.5, True, [48], {}),
)
MUST_BE_REFUSED |= dict.fromkeys(
    ("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "routed_scaling_factor"),
    (0, -1, "48", True, [48], {"a": 1}, float("nan"), float("inf")),
)
MUST_BE_REFUSED |= {
    "decoder_sparse_step": (-1, "2", 1.5, [1], {"a": 1}),
    "mlp_only_layers": (1, True, "1", {"a": 1}),
    "moe_layer_freq": (-1, "2", 1.5, [1], {"a": 1}),
    "first_k_dense_replace": (-1, "1", 1.5, [1], {"a": 1}),
    "num_nextn_predict_layers": (-1, "1", 1.5, 2**40, {"a": 1}),
}
UNREAD = {
    "gemma2": {"hidden_act"},
    "gemma3_text": {"hidden_act", "attn_logit_softcapping"},
    "qwen2_moe": {"intermediate_size"},
    "qwen3_moe": {"intermediate_size"},
    "deepseek_v2": {"num_key_value_heads", "head_dim"},
    "deepseek_v3": {"num_key_value_heads", "head_dim"},
}
"""Keys that an architecture has nothing to do with: those of dense layers where there are none, say."""
ALIASES = (("gemma", "gelu"),)
"""Activations that one architecture's checkpoints write for another."""
ANYTHING = (0, -1, 1, 7, 2**40, "48", 3.5, None, True, [48], {}, {"a": 1}, "spiral")
MAY_BE_REFUSED = (
    *("sliding_window", "layer_types", "use_sliding_window", "max_window_layers"),
    *("attention_bias", "mlp_bias", "tie_word_embeddings"),
    *("rope_scaling", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"),
)
OPTIONAL = (
    *("attention_bias", "mlp_bias", "hidden_act", "hidden_activation", "layer_types", "sliding_window"),
    *("rope_parameters", "rope_interleave", "query_pre_attn_scalar", "attn_logit_softcapping"),
    *("final_logit_softcapping", "norm_topk_prob", "routed_scaling_factor", "topk_method"),
    *("decoder_sparse_step", "mlp_only_layers", "moe_layer_freq"),
)
"""Keys that may be missing."""
OTHER_WORDS = "does not fit|layer_types|rope scaling|rope_theta|partial_rotary_factor|activation|number of experts"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover(PluginsConfig(allow=("vcore-engine",)))


@dataclass(frozen=True)
class TinyModel:
    """The tiny model of a type, to be built with some keys of its config changed."""

    model_type: str
    checkpoint: TinyCheckpoint
    model: Any

    def run(self, *, without: str | None = None, **changes: Any) -> torch.Tensor:
        """Logits of a prompt, after building and loading it."""
        values = self.checkpoint.config.to_dict() | changes
        config = HFConfig({key: value for key, value in values.items() if key != without})
        check_values(config)
        tensors = MemoryCheckpoint(self.checkpoint.tensors)
        driver = ModelDriver(self.model, config, tensors, attention=TorchSDPABackend, max_model_len=64)
        return driver.step({"a": self.checkpoint.prompt(20)})["a"]

    def reference(self, without: str) -> torch.Tensor:
        """The same by transformers."""
        values = self.checkpoint.config.to_dict()
        config = AutoConfig.for_model(**{key: value for key, value in values.items() if key != without})
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        model.load_state_dict(self.checkpoint.reference.state_dict())
        with torch.inference_mode():
            return model(torch.tensor([self.checkpoint.prompt(20)])).logits[0]

    def reads(self, key: str) -> bool:
        return key in self.checkpoint.config and key not in UNREAD.get(self.model_type, ())


@pytest.fixture(scope="module", params=MODEL_TYPES)
def tiny(request: pytest.FixtureRequest, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    class Case(ModelCase):
        model_type = request.param
        overrides = MODEL_TYPES[request.param]

    checkpoint = TinyCheckpoint(Case.make_config(), tmp_path_factory.mktemp(request.param))
    model: Any = catalog.load(catalog.find_by_key(PluginKind.MODEL, checkpoint.config.architectures[0]))
    assert issubclass(model, Model)
    return TinyModel(request.param, checkpoint, model)


def test_the_config_unchanged_is_served(tiny: TinyModel):
    tiny.run()


@pytest.mark.parametrize("key", MUST_BE_REFUSED)
def test_what_cannot_be_is_refused_by_name(tiny: TinyModel, key: str):
    """By the key, or, for a number that could be, by the tensors of the checkpoint that it does not fit."""
    if tiny.reads(key):
        for value in MUST_BE_REFUSED[key]:
            if (tiny.model_type, value) not in ALIASES:
                with pytest.raises(VcoreError, match=f"{key}|{OTHER_WORDS}"):
                    tiny.run(**{key: value})


@pytest.mark.parametrize("key", [key for key in SIZES if key not in ("head_dim", "num_key_value_heads")])
def test_a_size_that_is_null_is_refused_by_name(tiny: TinyModel, key: str):
    if tiny.reads(key):
        with pytest.raises(UnsupportedModelError, match=f"{key}=None"):
            tiny.run(**{key: None})


@pytest.mark.parametrize("key", OPTIONAL)
def test_what_is_left_out_means_what_it_means_to_transformers(tiny: TinyModel, key: str):
    """Such as the base of rotary positions, or by how much the experts' weights are scaled."""
    if key in tiny.checkpoint.config:
        torch.testing.assert_close(tiny.run(without=key), tiny.reference(key), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("key", MAY_BE_REFUSED)
def test_whatever_else_stands_there_is_served_or_refused(tiny: TinyModel, key: str):
    """Not every architecture reads the key, and some of the values are right; none is an accident."""
    for value in ANYTHING:
        with suppress(UnsupportedModelError, WeightsError):
            tiny.run(**{key: value})
