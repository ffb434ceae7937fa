"""Qwen2 and Qwen3, with and without sliding windows."""

from __future__ import annotations

from vcore.testing import ModelContract

_YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16}


class Qwen2(ModelContract):
    model_type = "qwen2"


class TestQwen2(Qwen2):
    pass


class TestQwen2Tied(Qwen2):
    overrides = {"tie_word_embeddings": True, "num_key_value_heads": 1}


class TestQwen2UnusedWindow(Qwen2):
    """As published: a window that is switched off."""

    overrides = {"sliding_window": 8, "use_sliding_window": False, "max_window_layers": 0}


class TestQwen2WindowInTheLastLayers(Qwen2):
    overrides = {"num_hidden_layers": 3, "sliding_window": 10, "use_sliding_window": True, "max_window_layers": 1}


class TestQwen2WindowEverywhere(Qwen2):
    overrides = {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 0}


class TestQwen2WindowInSomeLayers(Qwen2):
    overrides = {
        "num_hidden_layers": 3,
        "sliding_window": 10,
        "use_sliding_window": True,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    }


class TestQwen2Yarn(Qwen2):
    """Qwen2.5 beyond 32K tokens."""

    overrides = {"rope_parameters": _YARN}


class Qwen3(ModelContract):
    model_type = "qwen3"
    overrides = {"head_dim": 8}


class TestQwen3(Qwen3):
    pass


class TestQwen3WideHeads(Qwen3):
    """As published: heads that are wider together than the residual stream."""

    overrides = {"head_dim": 16, "tie_word_embeddings": True, "rope_parameters": _YARN}


class TestQwen3Biases(Qwen3):
    overrides = {"head_dim": 20, "attention_bias": True, "num_key_value_heads": 1}


class TestQwen3WindowInTheLastLayers(Qwen3):
    overrides = {
        "head_dim": 12,
        "num_hidden_layers": 3,
        "sliding_window": 10,
        "use_sliding_window": True,
        "max_window_layers": 1,
    }
