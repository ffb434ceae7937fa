"""Mixtral, with and without a sliding window; few experts, and all of them for each token."""

from __future__ import annotations

from vcore.testing import ModelContract


class Mixtral(ModelContract):
    model_type = "mixtral"


class TestPlain(Mixtral):
    overrides = {
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e6},
    }


class TestSlidingWindow(Mixtral):
    overrides = {"num_local_experts": 4, "num_experts_per_tok": 3, "sliding_window": 9, "head_dim": 12}


class TestEveryExpert(Mixtral):
    """Routing decides on the weights alone."""

    overrides = {"num_local_experts": 3, "num_experts_per_tok": 3, "tie_word_embeddings": True, "intermediate_size": 60}
    tensor_parallel = (2, 6)
