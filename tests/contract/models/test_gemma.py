"""Gemma 1 to 3, with windows that are shorter than the prompts and caps that the scores reach."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma3Config

from vcore.testing import ModelContract, TinyCheckpoint

WINDOW: dict[str, Any] = {
    "head_dim": 8,
    "num_hidden_layers": 4,
    "query_pre_attn_scalar": 5,
    "sliding_window": 8,
}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 100_000.0}
ROPE_BY_LAYER_TYPE = {
    "full_attention": LINEAR,
    "sliding_attention": {"rope_type": "default", "rope_theta": 1_000.0},
}


class TestGemma1(ModelContract):
    model_type = "gemma"
    overrides = {"head_dim": 20, "num_key_value_heads": 1, "rope_parameters": LINEAR}


class Gemma2(ModelContract):
    model_type = "gemma2"


class TestGemma2(Gemma2):
    overrides = WINDOW | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}


class TestGemma2WithoutCaps(Gemma2):
    overrides = WINDOW | {
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "attention_bias": True,
        "rope_parameters": LINEAR,
        "tie_word_embeddings": False,
    }


class TestGemma2WithOtherLayerTypes(Gemma2):
    overrides = WINDOW | {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}


class Gemma3(ModelContract):
    model_type = "gemma3_text"


class TestGemma3(Gemma3):
    overrides = WINDOW | {"sliding_window_pattern": 2, "rope_parameters": ROPE_BY_LAYER_TYPE}


class TestGemma3OfLocalLayers(Gemma3):
    """Fewer layers than the pattern has, so that all look back over a window."""

    overrides = WINDOW | {"attention_bias": True, "tie_word_embeddings": False, "final_logit_softcapping": 5.0}


class TestGemma3WithImages(Gemma3):
    """The language model of a checkpoint that has a vision tower, too."""

    model_type = "gemma3"

    @classmethod
    def make_config(cls) -> Any:
        text = {
            "vocab_size": 61,
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
        }
        vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        return Gemma3Config(
            text_config=text | WINDOW | {"sliding_window_pattern": 2, "rope_parameters": ROPE_BY_LAYER_TYPE},
            vision_config=vision | {"image_size": 8, "patch_size": 4},
            mm_tokens_per_image=4,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def tiny(cls, tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
        """With the tensors that are to be loaded; the files have those of the vision tower, too."""
        tiny = TinyCheckpoint(cls.make_config(), tmp_path_factory.mktemp(cls.__name__))
        text = {name: tensor for name, tensor in tiny.tensors.items() if name.startswith("language_model.")}
        assert len(text) < len(tiny.tensors)
        tiny.tensors = text
        return tiny
