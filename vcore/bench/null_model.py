"""`NullModel`: a model that computes nothing, so that what is left of a step is the engine itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from vcore.interfaces.attention import AttentionContext
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.weights import CheckpointReader
from vcore.kv_cache.spec import KVCacheSpec
from vcore.plugins.specs import ModelSpec

__all__ = ["NULL_MODEL_SPEC", "NullModel", "write_null_model"]

VOCAB_SIZE = 64
HIDDEN_SIZE = 1


class NullModel(Model):
    """Hidden states and logits are zeros, always; it keeps no cache, but its blocks are managed like any."""

    def __init__(self, *, options: None, context: BuildContext) -> None:
        super().__init__()
        self._hidden = torch.zeros(1, HIDDEN_SIZE, dtype=context.dtype, device=context.device)
        self._logits = torch.zeros(1, VOCAB_SIZE, dtype=context.dtype, device=context.device)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attn: AttentionContext,
        intermediate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Zeros [num_tokens, 1]."""
        return self._hidden.expand(input_ids.shape[0], HIDDEN_SIZE)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Zeros [num_rows, 64], a copy: they are the caller's to change."""
        return self._logits.repeat(hidden_states.shape[0], 1)

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        """There are none."""

    def kv_cache_specs(self) -> Sequence[KVCacheSpec]:
        """No layer keeps a cache."""
        return ()


NULL_MODEL_SPEC = ModelSpec(
    name="null",
    load=NullModel,
    api="1.0",
    summary="computes nothing: for measuring the engine",
    architectures=("VcoreNullModel",),
)


def write_null_model(folder: Path, max_model_len: int) -> None:
    """Write the ``config.json`` that selects `NullModel`."""
    config = {
        "architectures": ["VcoreNullModel"],
        "hidden_size": HIDDEN_SIZE,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": max_model_len,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
