"""Granite against transformers: logits, greedy tokens, ranks, and the loading of weights."""

from vcore.testing import ModelContract

MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.4,
    "logits_scaling": 2.0,
}


class TestGranite(ModelContract):
    model_type = "granite"
    overrides = MULTIPLIERS


class TestGraniteTiedWithBiases(ModelContract):
    model_type = "granite"
    overrides = MULTIPLIERS | {
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    }
