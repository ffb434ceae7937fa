"""Tiny model files, made here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

HIDDEN, HEADS, KV_HEADS, FFN, LAYERS, VOCAB = 64, 4, 2, 96, 2, 32
HEAD_DIM = HIDDEN // HEADS
Array = np.ndarray[Any, np.dtype[np.float32]]


def llama_tensors(*, tied: bool = True, seed: int = 0) -> dict[str, Array]:
    """A llama in Hugging Face's names and layout."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    tensors = {"model.embed_tokens.weight": normal(VOCAB, HIDDEN), "model.norm.weight": normal(HIDDEN)}
    if not tied:
        tensors["lm_head.weight"] = normal(VOCAB, HIDDEN)
    for layer in range(LAYERS):
        shapes = {
            "input_layernorm": (HIDDEN,),
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "post_attention_layernorm": (HIDDEN,),
            "mlp.gate_proj": (FFN, HIDDEN),
            "mlp.up_proj": (FFN, HIDDEN),
            "mlp.down_proj": (HIDDEN, FFN),
        }
        tensors |= {f"model.layers.{layer}.{name}.weight": normal(*shape) for name, shape in shapes.items()}
    return tensors


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """As llama.cpp names what Hugging Face names `name`."""
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{GGUF_NAMES[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.{kind}"


def permute(tensor: Array, heads: int) -> Array:
    """What llama.cpp's converter does to q and k: within each head, halves become neighbouring pairs.

    Written row by row, as the reference for the loader's own formula.
    """
    head_dim = len(tensor) // heads
    rows = []
    for head in range(heads):
        for pair in range(head_dim // 2):
            rows += [head * head_dim + pair, head * head_dim + head_dim // 2 + pair]
    return tensor[rows]


WriteGGUF = Callable[..., Path]


@pytest.fixture
def write_gguf(tmp_path: Path) -> WriteGGUF:
    """Writes a GGUF file of the given Hugging Face tensors.

    Args of what it returns: `tensors`; `kind` of quantisation of the matrices; `architecture`; `metadata`, where None
    leaves a key out; `values` under whole keys; `extra` tensors under their GGUF names; `name` of the file.
    """

    def write(
        tensors: Mapping[str, Array],
        *,
        kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
        architecture: str = "llama",
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Array] | None = None,
        values: Mapping[str, Any] | None = None,
        name: str = "tiny.gguf",
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(str(path), architecture)
        keys: dict[str, Any] = {
            "block_count": LAYERS,
            "context_length": 128,
            "embedding_length": HIDDEN,
            "feed_forward_length": FFN,
            "attention.head_count": HEADS,
            "attention.head_count_kv": KV_HEADS,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.freq_base": 10000.0,
            "rope.dimension_count": HEAD_DIM,
            **(metadata or {}),
        }
        for key, value in keys.items():
            _add(writer, f"{architecture}.{key}", value)
        for key, value in (values or {}).items():
            _add(writer, key, value)
        for key, token_id in {"bos": 1, "eos": 2, "eot": 3}.items():
            writer.add_uint32(f"tokenizer.ggml.{key}_token_id", token_id)
        for tensor_name, tensor in tensors.items():
            heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(tensor_name.split(".")[-2])
            stored = tensor if heads is None else permute(tensor, heads)
            if stored.ndim > 1 and kind != gguf.GGMLQuantizationType.F32:
                writer.add_tensor(gguf_name(tensor_name), gguf.quants.quantize(stored, kind), raw_dtype=kind)
            else:
                writer.add_tensor(gguf_name(tensor_name), np.ascontiguousarray(stored))
        for tensor_name, tensor in (extra or {}).items():
            writer.add_tensor(tensor_name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif value is not None:
        writer.add_uint32(key, value)


@pytest.fixture
def tiny_tensors() -> dict[str, Array]:
    """A tied llama."""
    return llama_tensors()


@pytest.fixture
def untied_tensors() -> dict[str, Array]:
    """A llama with an output matrix of its own."""
    return llama_tensors(tied=False)


@pytest.fixture
def write_safetensors(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model folder: ``write(tensors)`` one file, ``write(tensors, shards=2)`` shards and an index."""

    def write(tensors: Mapping[str, torch.Tensor], *, shards: int = 1, index: bool = True) -> Path:
        (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
        if shards == 1:
            save_file(dict(tensors), tmp_path / "model.safetensors")
            return tmp_path
        names = sorted(tensors)
        file_of = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(names)}
        for file in set(file_of.values()):
            save_file({name: tensors[name] for name in names if file_of[name] == file}, tmp_path / file)
        if index:
            text = json.dumps({"metadata": {}, "weight_map": file_of})
            (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
        return tmp_path

    return write
