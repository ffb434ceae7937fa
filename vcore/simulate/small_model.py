"""`write_small_model`: a Llama that a CPU serves fast enough to be replayed against, without weights."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["SMALL_ENGINE", "write_small_model"]

SMALL_ENGINE = (
    "model.load_format=dummy",
    "model.dtype=float32",
    "cache.block_size=16",
    "cache.num_blocks=1200",
    "scheduler.max_num_seqs=32",
    "scheduler.max_num_batched_tokens=512",
    "runtime.device=cpu",
    "runtime.num_threads=1",
)
"""An engine that fits it, as ``--set`` takes it."""


def write_small_model(folder: Path) -> Path:
    """Write the ``config.json`` of 4 layers of 256, 4 heads on 2 of keys and values, 8,192 tokens at most.

    Returns:
        `folder`, which is there.
    """
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 2048,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return folder
