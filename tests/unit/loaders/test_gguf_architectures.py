"""Every architecture that is read from GGUF: a model of transformers, written as llama.cpp writes it, comes back whole.

Names are those of the ``gguf`` library's own tables. What llama.cpp's converter does to values (rows of queries and
keys in another order, one added to norms, matrices of experts stacked) is done here again, independently of the loader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from vcore_model_zoo.loaders.gguf_architectures import ARCHITECTURES
from vcore_model_zoo.loaders.gguf_configs.gemma import gemma2_config, gemma3_config
from vcore_model_zoo.loaders.gguf_loader import GGUFLoader
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

from vcore.interfaces.weights import WeightLoaderContext

HEADS, KV_HEADS, HEAD_DIM, HIDDEN, FFN, VOCAB, EXPERTS = 4, 2, 16, 48, 96, 80, 3
WINDOW, CONTEXT = 8, 64
_EXPERT = re.compile(r"(.+\.experts\.)(\d+)\.(\w+)\.weight")


@dataclass(frozen=True, slots=True)
class Case:
    """A model in both terms."""

    architecture: str
    model_type: str
    hf_class: str
    config: dict[str, Any] = field(default_factory=dict)
    """What transformers is told, besides the sizes."""
    keys: dict[str, Any] = field(default_factory=dict)
    """What the file says, besides the sizes."""
    norm_offset: float = 0.0
    permuted: bool = False
    factors: dict[str, list[float]] = field(default_factory=dict)
    """Tensors with rotary factors."""
    name: str = ""

    @property
    def num_layers(self) -> int:
        return int(self.config.get("num_hidden_layers", 2))


_WINDOWED = {"attention.sliding_window": WINDOW}
_GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
_GEMMA2 = {**_GEMMA, "query_pre_attn_scalar": HEAD_DIM, "sliding_window": WINDOW}
_GEMMA3 = {**_GEMMA2, "num_hidden_layers": 7}
_LOCAL = {"rope_type": "default", "rope_theta": 10000.0}
_EXPERT_KEYS = {"expert_count": EXPERTS, "expert_used_count": 2}
_LONG, _SHORT = [1.0 + 0.5 * i for i in range(4)], [1.0 + 0.1 * i for i in range(4)]

CASES = [
    Case("llama", "llama", "LlamaForCausalLM", permuted=True),
    Case(
        "llama",
        "llama",
        "LlamaForCausalLM",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}, "attention_bias": True},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        permuted=True,
        name="llama with biases and scaling",
    ),
    Case(
        "llama", "mistral", "MistralForCausalLM", {"sliding_window": WINDOW}, _WINDOWED, permuted=True, name="mistral"
    ),
    Case(
        "llama",
        "mixtral",
        "MixtralForCausalLM",
        {"num_local_experts": EXPERTS, "num_experts_per_tok": 2},
        {**_EXPERT_KEYS, "rope.freq_base": 1000000.0},
        permuted=True,
        name="mixtral",
    ),
    Case("qwen2", "qwen2", "Qwen2ForCausalLM"),
    Case("qwen3", "qwen3", "Qwen3ForCausalLM", {"tie_word_embeddings": True}),
    Case(
        "qwen3moe",
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        {"num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True},
        {**_EXPERT_KEYS, "expert_feed_forward_length": 32},
    ),
    Case("olmo2", "olmo2", "Olmo2ForCausalLM"),
    Case("phi3", "phi3", "Phi3ForCausalLM", {"sliding_window": WINDOW, "pad_token_id": 0}, _WINDOWED),
    Case(
        "phi3",
        "phi3",
        "Phi3ForCausalLM",
        {
            "pad_token_id": 0,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "long_factor": _LONG,
                "short_factor": _SHORT,
            },
        },
        {"rope.dimension_count": HEAD_DIM // 2, "rope.scaling.original_context_length": 16},
        factors={"rope_factors_long.weight": _LONG, "rope_factors_short.weight": _SHORT},
        name="phi3 with long rope",
    ),
    Case("gemma", "gemma", "GemmaForCausalLM", _GEMMA, norm_offset=1.0),
    Case(
        "gemma2",
        "gemma2",
        "Gemma2ForCausalLM",
        {**_GEMMA2, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 15.0},
        {**_WINDOWED, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 15.0},
        norm_offset=1.0,
    ),
    Case(
        "gemma3",
        "gemma3_text",
        "Gemma3ForCausalLM",
        {
            **_GEMMA3,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                "sliding_attention": _LOCAL,
            },
        },
        {**_WINDOWED, "rope.freq_base": 1000000.0},
        norm_offset=1.0,
    ),
    Case(
        "gemma3",
        "gemma3_text",
        "Gemma3ForCausalLM",
        {
            **_GEMMA3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": _LOCAL,
            },
        },
        {
            **_WINDOWED,
            "rope.freq_base": 1000000.0,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
        norm_offset=1.0,
        name="gemma3 with scaling",
    ),
]


def make_model(case: Case) -> torch.nn.Module:
    """A random model whose every parameter matters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "hidden_size": HEADS * HEAD_DIM if case.model_type in ("phi3", "olmo2", "qwen2") else HIDDEN,
        "intermediate_size": FFN,
        "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if case.model_type not in ("phi3", "olmo2", "qwen2"):
        sizes["head_dim"] = HEAD_DIM
    config = AutoConfig.for_model(case.model_type, **{**sizes, **case.config})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def stored_tensors(case: Case, tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """The checkpoint's tensors as llama.cpp stores them."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == case.architecture)
    names = gguf.get_tensor_name_map(arch, case.num_layers)
    stacked: dict[str, list[np.ndarray[Any, Any]]] = {}
    stored = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])]):
        values = tensor.numpy()
        expert = _EXPERT.fullmatch(name)
        if expert is not None:
            stacked.setdefault(f"{expert[1]}{expert[3]}.weight", []).append(values)
            continue
        if name.endswith("norm.weight"):
            values = values + np.float32(case.norm_offset)
        if case.permuted and re.search(r"\.[qk]_proj\.", name):
            heads = HEADS if ".q_proj." in name else KV_HEADS
            values = values.reshape(heads, 2, HEAD_DIM // 2, -1).swapaxes(1, 2).reshape(values.shape)
        stored[name] = values
    stored |= {name: np.stack(matrices) for name, matrices in stacked.items()}
    mapped = {names.get_name(name, try_suffixes=(".weight", ".bias")): values for name, values in stored.items()}
    assert None not in mapped
    assert len(mapped) == len(stored)
    return {name: np.ascontiguousarray(values) for name, values in mapped.items() if name is not None}


def write_file(case: Case, model: torch.nn.Module, folder: Path) -> Path:
    """The model as a GGUF file."""
    model.save_pretrained(folder / "checkpoint")
    tensors = load_file(folder / "checkpoint" / "model.safetensors")
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(str(path), case.architecture)
    keys = {
        "block_count": case.num_layers,
        "context_length": CONTEXT,
        "embedding_length": model.config.hidden_size,
        "feed_forward_length": FFN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIM,
        "attention.value_length": HEAD_DIM,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        **case.keys,
    }
    for key, value in keys.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{case.architecture}.{key}", value)
    for kind, token_id in {"padding": 0, "bos": 1, "eos": 2}.items():
        writer.add_uint32(f"tokenizer.ggml.{kind}_token_id", token_id)
    for name, values in stored_tensors(case, tensors).items():
        writer.add_tensor(name, values)
    for name, factors in case.factors.items():
        writer.add_tensor(name, np.array(factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name or case.architecture)
def test_a_model_comes_back_whole(case: Case, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = make_model(case)
    path = write_file(case, model, tmp_path)
    loader = GGUFLoader(options=None, context=WeightLoaderContext(path=path))
    loader.open().close()
    assert loader.config().architectures == (case.hf_class,)
    again, info = AutoModelForCausalLM.from_pretrained(
        path.with_name("model.gguf.vcore"), dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(again) is type(model)
    ids = torch.randint(3, VOCAB, (1, 3 * WINDOW), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_every_architecture_has_a_case() -> None:
    assert {case.architecture for case in CASES} == set(ARCHITECTURES)


def metadata(architecture: str, **values: Any) -> GGUFMetadata:
    """Of a file whose sizes are those of a released model."""
    keys = {
        "attention.head_count_kv": 4,
        "feed_forward_length": 100,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.sliding_window": 1024,
        "context_length": 8192,
        **{name.replace("__", "."): value for name, value in values.items()},
    }
    known = {f"{architecture}.{key}": value for key, value in keys.items()} | {"general.architecture": architecture}
    shapes = {"token_embd.weight": (256000, int(keys["embedding_length"]))}
    return GGUFMetadata(origin="x.gguf", lookup=known.get, shapes=shapes, tensor_values=lambda name: [])


@pytest.mark.parametrize(
    ("architecture", "layers", "hidden", "heads", "head_dim", "scalar"),
    [
        ("gemma2", 26, 2304, 8, 256, 256),  # 2B
        ("gemma2", 42, 3584, 16, 256, 256),  # 9B
        ("gemma2", 46, 4608, 32, 128, 144),  # 27B
        ("gemma3", 18, 640, 4, 256, 256),  # 270M
        ("gemma3", 34, 2560, 8, 256, 256),  # 4B
        ("gemma3", 62, 5376, 32, 128, 168),  # 27B
    ],
)
def test_what_queries_are_divided_by_in_gemma(
    architecture: str, layers: int, hidden: int, heads: int, head_dim: int, scalar: int
) -> None:
    read = {"gemma2": gemma2_config, "gemma3": gemma3_config}[architecture]
    values = {
        "block_count": layers,
        "embedding_length": hidden,
        "attention__head_count": heads,
        "attention__key_length": head_dim,
        "attention__value_length": head_dim,
    }
    config = read(metadata(architecture, **values))
    assert config["query_pre_attn_scalar"] == scalar
    assert config["layer_types"].count("full_attention") == layers // {"gemma2": 2, "gemma3": 6}[architecture]
