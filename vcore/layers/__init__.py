"""Building blocks for model authors: from linear layers to whole blocks, and the loading of weights."""

from __future__ import annotations

from vcore.layers.attention import Attention, CachingLayer, collect_kv_cache_specs
from vcore.layers.attention_block import AttentionBlock
from vcore.layers.causal_lm import CausalLM, DecoderLayer
from vcore.layers.config_checks import check_positive, check_sizes
from vcore.layers.embedding import LMHead, VocabParallelEmbedding
from vcore.layers.heads import Heads
from vcore.layers.layer_norm import LayerNorm
from vcore.layers.layer_types import FULL, SLIDING, layer_types
from vcore.layers.linear import ColumnParallelLinear, QKVParallelLinear, ReplicatedLinear, RowParallelLinear
from vcore.layers.mla import MLAAttention
from vcore.layers.mlp import MLP, GatedMLP
from vcore.layers.moe import FusedMoE, MoEBlock, SharedExperts
from vcore.layers.norm import HeadsRMSNorm, NormStyle, ResidualBlock, RMSNorm
from vcore.layers.rotary import RotaryEmbedding, Rotation
from vcore.layers.routing import (
    GroupLimitedRouting,
    Routing,
    SigmoidRouting,
    SoftmaxRouting,
    TopKSoftmaxRouting,
    UniformRouting,
)
from vcore.layers.weights import PartitionedModule, WeightMap, WeightPart, load_weights

__all__ = [
    "FULL",
    "MLP",
    "SLIDING",
    "Attention",
    "AttentionBlock",
    "CachingLayer",
    "CausalLM",
    "ColumnParallelLinear",
    "DecoderLayer",
    "FusedMoE",
    "GatedMLP",
    "GroupLimitedRouting",
    "Heads",
    "HeadsRMSNorm",
    "LMHead",
    "LayerNorm",
    "MLAAttention",
    "MoEBlock",
    "NormStyle",
    "PartitionedModule",
    "QKVParallelLinear",
    "RMSNorm",
    "ReplicatedLinear",
    "ResidualBlock",
    "RotaryEmbedding",
    "Rotation",
    "Routing",
    "RowParallelLinear",
    "SharedExperts",
    "SigmoidRouting",
    "SoftmaxRouting",
    "TopKSoftmaxRouting",
    "UniformRouting",
    "VocabParallelEmbedding",
    "WeightMap",
    "WeightPart",
    "check_positive",
    "check_sizes",
    "collect_kv_cache_specs",
    "layer_types",
    "load_weights",
]
