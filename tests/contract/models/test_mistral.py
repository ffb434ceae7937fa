"""Mistral, with and without a sliding window."""

from __future__ import annotations

from vcore.testing import ModelContract


class Mistral(ModelContract):
    model_type = "mistral"


class TestWindow(Mistral):
    """No multiple of a block, so that blocks are left behind while some of their tokens are still seen."""

    overrides = {"sliding_window": 10}


class TestWindowOfBlocks(Mistral):
    overrides = {
        "sliding_window": 16,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        "tie_word_embeddings": True,
    }


class TestWindowOfTwoTokens(Mistral):
    """The shortest in which queries and keys matter."""

    overrides = {"sliding_window": 2, "num_hidden_layers": 3}


class TestWindowBeyondTheLongestRequest(Mistral):
    overrides = {"sliding_window": 4096}


class TestNoWindow(Mistral):
    overrides = {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}


class TestHeadDim(Mistral):
    """Heads that are wider together than the residual stream, as Mistral Nemo's are narrower."""

    overrides = {"sliding_window": 12, "head_dim": 20, "num_key_value_heads": 6}
