"""The rotary layer's angles against transformers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from vcore.interfaces.model import BuildContext
from vcore.layers import RotaryEmbedding

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}


def test_turned_queries_are_those_of_transformers(build_context: Callable[..., BuildContext]):
    reference = LlamaRotaryEmbedding(
        LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=256, rope_parameters=dict(YARN))
    )
    positions = torch.tensor([3, 0, 255, 17, 17])
    x = torch.randn(5, 4, 16)
    cos, sin = reference(x, positions[None])
    expected, _ = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cos, sin)

    context = build_context({"max_position_embeddings": 256, "rope_parameters": YARN}, max_model_len=256)
    rotation = RotaryEmbedding(context, head_dim=16)(positions)
    rotation.apply_(x)
    torch.testing.assert_close(x, expected[0].transpose(0, 1), rtol=1e-5, atol=1e-6)


def test_the_table_is_float32_and_ends_at_the_longest_request(build_context: Callable[..., BuildContext]):
    context = build_context({"max_position_embeddings": 256}, max_model_len=20, dtype=torch.bfloat16)
    rotary = RotaryEmbedding(context, head_dim=16)
    assert rotary.cos_sin.dtype == torch.float32
    assert rotary.cos_sin.shape == (20, 16)
    with pytest.raises(IndexError):
        rotary(torch.tensor([20]))


def test_the_table_is_no_weight(build_context: Callable[..., BuildContext]):
    rotary = RotaryEmbedding(build_context({"max_position_embeddings": 256}), head_dim=16)
    assert rotary.state_dict() == {}


def test_the_table_does_not_depend_on_the_builders_defaults(build_context: Callable[..., BuildContext]):
    context = build_context({"max_position_embeddings": 256, "rope_parameters": YARN})
    expected = RotaryEmbedding(context, head_dim=16).cos_sin
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            table = RotaryEmbedding(context, head_dim=16).cos_sin
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(table, expected)
