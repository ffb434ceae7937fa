"""OLMo 2, whose norms of queries and keys go over all heads, also where these are split over ranks."""

from __future__ import annotations

from vcore.testing import ModelContract


class Olmo2(ModelContract):
    model_type = "olmo2"


class TestPlain(Olmo2):
    pass


class TestOneKeyValueHead(Olmo2):
    """Of which every rank keeps a copy, that the norm must not count twice."""

    overrides = {"num_key_value_heads": 1, "intermediate_size": 60, "tie_word_embeddings": True}
    tensor_parallel = (2, 3)


class TestBiases(Olmo2):
    overrides = {"attention_bias": True, "num_key_value_heads": 6}


class TestScaled(Olmo2):
    overrides = {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 5e5,
            "factor": 8.0,
            "original_max_position_embeddings": 16,
            "attention_factor": 1.2,
        }
    }
