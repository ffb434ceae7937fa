"""Phi-3, with both sets of LongRoPE's factors, partial rotation and a sliding window."""

from __future__ import annotations

from typing import Any

from vcore.testing import ModelContract


def _longrope(num_pairs: int, **numbers: float) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0 + pair / 10 for pair in range(num_pairs)],
        "long_factor": [2.0 + pair for pair in range(num_pairs)],
        **numbers,
    }


class Phi3(ModelContract):
    model_type = "phi3"


class TestPlain(Phi3):
    pass


class TestTied(Phi3):
    overrides = {"tie_word_embeddings": True, "num_key_value_heads": 1}


class TestWindow(Phi3):
    overrides = {"sliding_window": 10, "num_key_value_heads": 6}


class TestPartialRotation(Phi3):
    """Phi-4-mini turns three quarters of each head."""

    overrides = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}}


class TestShortFactors(Phi3):
    """Up to the pretrained length, with the correction of the scores for the length that is possible."""

    overrides = {
        "max_position_embeddings": 256,
        "original_max_position_embeddings": Phi3.max_model_len,
        "rope_parameters": _longrope(4),
    }


class TestLongFactors(Phi3):
    """Transformers takes them beyond the pretrained length, so here that is one token, whose angle is zero anyway."""

    overrides = {
        "original_max_position_embeddings": 1,
        "rope_parameters": _longrope(4, attention_factor=1.2),
    }


class TestEverything(Phi3):
    overrides = {
        "sliding_window": 12,
        "tie_word_embeddings": True,
        "original_max_position_embeddings": 1,
        "rope_parameters": _longrope(3, attention_factor=1.2, partial_rotary_factor=0.75),
    }
