"""The config.json files of published checkpoints, as they stand there: what is read from them, and what it comes to.

Cases of the contract suite are saved by transformers, which writes every key in the way of its own release. Published
files are older: they leave defaults out, nest what is about text, state windows that are switched off, and scale
rotary embedding in words that have changed since. LongRoPE's factors are made up; every other value is the published
one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from vcore_backends.torch_sdpa.backend import TorchSDPABackend

from vcore.config import ModelConfig, PluginsConfig
from vcore.engine.outline import ModelOutline, outline_model
from vcore.engine.resolve.context_length import trained_length
from vcore.engine.resolve.hf_values import check_values, eos_token_ids
from vcore.engine.resolve.model_plugin import ChosenModel, find_model
from vcore.interfaces.hf_config import HFConfig
from vcore.layers.rope_scaling import RopeParameters, rope_frequencies
from vcore.plugins import Catalog, discover
from vcore.testing import MemoryCheckpoint, ModelDriver, TinyCheckpoint

FOLDER = Path(__file__).parent / "published_configs"
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))
BILLIONS = {
    "deepseek-v2": 235.7,
    "deepseek-v2-lite": 15.71,
    "deepseek-v3": 671.0,
    "gemma-2-27b": 27.23,
    "gemma-2-2b": 2.61,
    "gemma-2-9b": 9.24,
    "gemma-2b": 2.51,
    "gemma-3-1b": 1.00,
    "gemma-3-27b": 27.01,
    "gemma-3-4b": 3.88,
    "llama-2-7b": 6.74,
    "llama-3.1-8b": 8.03,
    "llama-3.2-1b": 1.24,
    "mistral-7b-v0.1": 7.24,
    "mistral-7b-v0.3": 7.25,
    "mistral-nemo-12b": 12.25,
    "mixtral-8x7b": 46.70,
    "olmo-2-32b": 32.23,
    "olmo-2-7b": 7.30,
    "phi-3-mini-128k": 3.82,
    "phi-3-mini-4k": 3.82,
    "phi-4": 14.66,
    "phi-4-mini": 3.84,
    "qwen1.5-moe-a2.7b": 14.32,
    "qwen2-57b-a14b": 57.41,
    "qwen2.5-0.5b": 0.49,
    "qwen2.5-7b": 7.62,
    "qwen3-30b-a3b": 30.53,
    "qwen3-8b": 8.19,
}
"""Parameters as the checkpoints' pages state them; of Gemma 3 with images, those of the language model."""
FULL_LENGTH_WINDOWS = {
    "gemma-2-27b": {4096: 23, None: 23},
    "gemma-2-2b": {4096: 13, None: 13},
    "gemma-2-9b": {4096: 21, None: 21},
    "gemma-3-1b": {512: 22, None: 4},
    "gemma-3-27b": {1024: 52, None: 10},
    "gemma-3-4b": {1024: 29, None: 5},
    "mistral-7b-v0.1": {4096: 32},
    "phi-3-mini-4k": {2047: 32},
}
"""Layers by window, where there are any at the trained length."""
NOT_OF_TEXT = ("vision_tower", "multi_modal_projector")
"""Beginnings of tensors' names that a language model leaves alone."""
ACTIVE = ("gemma-2", "gemma-3", "mistral-7b-v0.1", "phi-3-mini-4k")
"""Models whose windows are made small, so that they matter to a short prompt."""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover(PluginsConfig(allow=("vcore-engine",)))


def _published(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return values


def _chosen(catalog: Catalog, values: dict[str, Any]) -> ChosenModel:
    config = HFConfig(values)
    check_values(config)
    return find_model(ModelConfig(path="published"), config, catalog)[0]


def _outline(catalog: Catalog, chosen: ChosenModel, tp_size: int = 1) -> ModelOutline:
    length = trained_length(chosen.hf_config)
    assert length is not None
    outline = outline_model(
        catalog, chosen.entry, {}, chosen.hf_config, dtype=torch.bfloat16, max_model_len=length[0], tp_size=tp_size
    )
    assert outline is not None
    return outline


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_windows_are_those_that_are_stated(catalog: Catalog, name: str):
    outline = _outline(catalog, _chosen(catalog, _published(name)))
    assert outline.num_parameters / 1e9 == pytest.approx(BILLIONS[name], abs=0.006, rel=2e-4)
    windows = {kind.window: kind.num_layers for kind in outline.cache_kinds}
    assert windows == FULL_LENGTH_WINDOWS.get(name, {None: sum(windows.values())})


@pytest.mark.parametrize("name", NAMES)
def test_rotary_frequencies_are_those_of_transformers(catalog: Catalog, name: str, tmp_path: Path):
    """At the published sizes: at those of tiny models the slow ones would not show."""
    reference = _reference_config(_published(name), tmp_path).get_text_config()
    config = _chosen(catalog, _published(name)).hf_config
    length = trained_length(config)
    assert length is not None
    head_dim = (
        config.get("qk_rope_head_dim") or config.get("head_dim") or config.hidden_size // config.num_attention_heads
    )
    by_type = {key: value for key, value in reference.rope_parameters.items() if isinstance(value, dict)}
    for layer_type, stated in (by_type or {None: reference.rope_parameters}).items():
        for max_model_len in (length[0], 4096):
            parameters = RopeParameters.from_config(config, head_dim, max_model_len, layer_type)
            frequencies = rope_frequencies(parameters)
            if stated["rope_type"] == "default":
                exponents = torch.arange(0, parameters.rotary_dim, 2) / parameters.rotary_dim
                expected, factor = 1 / stated["rope_theta"] ** exponents, 1.0
            else:
                keywords = {"layer_type": layer_type} if layer_type else {}
                expected, factor = ROPE_INIT_FUNCTIONS[stated["rope_type"]](
                    reference, torch.device("cpu"), seq_len=max_model_len, **keywords
                )
            torch.testing.assert_close(frequencies.inv_freq, expected, rtol=1e-6, atol=0)
            assert frequencies.attention_factor == pytest.approx(factor)


@pytest.mark.parametrize("name", NAMES)
def test_a_small_model_of_the_same_config_computes_what_transformers_does(catalog: Catalog, name: str, tmp_path: Path):
    """The file stays as it is, but for the sizes; nothing that transformers would write takes its place.

    In bfloat16 both err, ours by about as much; a single rounding more or less would not show.
    """
    values = _shrunk(name)
    tiny = TinyCheckpoint(_reference_config(values, tmp_path), tmp_path / "saved", weight_scale=0.15)
    _round_to_bfloat16(tiny)
    chosen = _chosen(catalog, values)
    model: Any = catalog.load(chosen.entry)
    checkpoint = MemoryCheckpoint({name: one for name, one in tiny.tensors.items() if not name.startswith(NOT_OF_TEXT)})
    prompt = tiny.prompt(40)
    expected = tiny.logits(prompt)

    def logits(dtype: torch.dtype) -> torch.Tensor:
        driver = ModelDriver(
            model, chosen.hf_config, checkpoint, attention=TorchSDPABackend, max_model_len=64, dtype=dtype
        )
        return driver.step({"a": prompt})["a"]

    torch.testing.assert_close(logits(torch.float32), expected, rtol=1e-4, atol=1e-4)
    ours = logits(torch.bfloat16)
    _lower(tiny.reference)
    assert _error(ours, expected) < 1.2 * _error(tiny.logits(prompt), expected)


def test_ends_of_sequence_are_found_in_configs_with_images(catalog: Catalog):
    for name in ("gemma-3-1b", "gemma-3-4b"):
        assert eos_token_ids({}, _chosen(catalog, _published(name)).hf_config) == (1, 106)


@torch.no_grad()
def _round_to_bfloat16(tiny: TinyCheckpoint) -> None:
    """So that computing in bfloat16 changes no weight. What balances DeepSeek-V3's experts is float32 in all dtypes."""
    for weight in tiny.reference.parameters():
        weight.copy_(weight.bfloat16())
    tiny.tensors = {
        name: tensor if name.endswith("e_score_correction_bias") else tensor.bfloat16().float()
        for name, tensor in tiny.tensors.items()
    }


def _lower(reference: torch.nn.Module) -> None:
    """To bfloat16, as loading does: the weights, and not what is made from the config, such as rotary frequencies."""
    for weight in reference.parameters():
        weight.data = weight.data.bfloat16()


def _error(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, of a token in the middle: where a router decides otherwise, that token is far off."""
    return float(((logits.float() - expected).norm(dim=-1) / expected.norm(dim=-1)).median())


def _reference_config(values: dict[str, Any], folder: Path) -> Any:  # the library has no types
    written = {key: value for key, value in values.items() if key != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    return AutoConfig.from_pretrained(folder)


def _shrunk(name: str) -> dict[str, Any]:
    """The published config with tiny sizes, of about the same proportions."""
    values = _published(name)
    text = values.get("text_config", values)
    heads, kv_heads = text.get("num_attention_heads", 8), text.get("num_key_value_heads", 4)
    num_heads = 4
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 80,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_heads if kv_heads == heads else 1 if kv_heads == 1 else 2,
        "num_hidden_layers": 7 if "gemma-3" in name else 3,
        "vocab_size": 61,
        "head_dim": 20,
        "kv_lora_rank": 24,
        "q_lora_rank": 20,
        "qk_nope_head_dim": 12,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "first_k_dense_replace": 1,
        "n_routed_experts": 16,
        "num_experts": 16,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 44,
    }
    always = ("num_attention_heads", "num_key_value_heads", "vocab_size", *(["head_dim"] if "gemma" in name else []))
    text |= {key: size for key, size in sizes.items() if text.get(key) is not None or key in always}
    text |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    if name.startswith(ACTIVE):
        text["sliding_window"] = 9
    scaling = text.get("rope_scaling") or {}
    rotary_dim = int(64 // num_heads * text.get("partial_rotary_factor", 1.0))
    for key in ("long_factor", "short_factor"):
        if key in scaling:
            scaling[key] = scaling[key][: rotary_dim // 2]
    if "vision_config" in values:
        values["vision_config"] |= {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        values["vision_config"] |= {"num_attention_heads": 1, "image_size": 8, "patch_size": 4}
        values["mm_tokens_per_image"] = 4
    return values
