"""Building blocks for model authors: from linear layers to whole blocks, and the loading of weights."""

from __future__ import annotations

from vcore.layers.attention import Attention, collect_kv_cache_specs
from vcore.layers.attention_block import AttentionBlock
from vcore.layers.embedding import LMHead, VocabParallelEmbedding
from vcore.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vcore.layers.mlp import GatedMLP
from vcore.layers.norm import RMSNorm
from vcore.layers.rotary import RotaryEmbedding, Rotation
from vcore.layers.weights import PartitionedModule, WeightMap, WeightPart, load_weights

__all__ = [
    "Attention",
    "AttentionBlock",
    "ColumnParallelLinear",
    "GatedMLP",
    "LMHead",
    "PartitionedModule",
    "QKVParallelLinear",
    "RMSNorm",
    "RotaryEmbedding",
    "Rotation",
    "RowParallelLinear",
    "VocabParallelEmbedding",
    "WeightMap",
    "WeightPart",
    "collect_kv_cache_specs",
    "load_weights",
]
