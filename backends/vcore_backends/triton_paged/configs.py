"""Tile sizes, warps, pipeline depths and split counts of the kernels: `configs.json`, read once.

The table was tuned on the device that it names; elsewhere the results are as right, perhaps not as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vcore_backends.config_tables import ConfigTables

__all__ = ["DecodeConfig", "PrefillConfig", "SharedConfig", "decode_config", "prefill_config", "shared_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig:
    """How the decode kernel, and the one that merges its splits, are compiled and spread."""

    block_n: int
    """Tokens a tile of keys."""
    num_warps: int
    num_stages: int
    """Depth of the software pipeline."""
    programs_per_sm: int
    """Programs launched, over all KV heads, for each multiprocessor."""
    merge_block: int
    """Partial results merged at a time."""
    merge_warps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillConfig:
    """How the prefill kernel is compiled."""

    block_m: int
    """Query tokens a tile."""
    block_n: int
    """Keys a tile."""
    num_warps: int
    num_stages: int
    """Depth of the software pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedConfig:
    """How the kernel that attends a shared prefix is compiled and spread."""

    block_m: int
    """Queries a tile: query heads of a KV head, of one request after another."""
    block_n: int
    """Keys a tile."""
    num_warps: int
    num_stages: int
    """Depth of the software pipeline."""
    programs_per_sm: int
    """Programs launched, over all KV heads and queries, for each multiprocessor: the prefix is split for that."""


_TABLES = ConfigTables(Path(__file__).with_name("configs.json"))


@cache
def decode_config(*, itemsize: int, head_dim: int, num_requests: int) -> DecodeConfig:
    """The decode configuration for a dtype of `itemsize` bytes, a head dimension and a batch size."""
    shape = {"itemsize": itemsize, "head_dim": head_dim, "num_requests": num_requests}
    return DecodeConfig(**_TABLES.first_fit("decode", shape))


@cache
def prefill_config(*, itemsize: int, head_dim: int, block_size: int, max_query_len: int) -> PrefillConfig:
    """The prefill configuration for a dtype of `itemsize` bytes, a cache shape and a step's longest chunk."""
    shape = {
        "itemsize": itemsize,
        "head_dim": head_dim,
        "block_size": block_size,
        "max_query_len": max_query_len,
    }
    return PrefillConfig(**_TABLES.first_fit("prefill", shape))


@cache
def shared_config(*, itemsize: int, head_dim: int, num_queries: int) -> SharedConfig:
    """The configuration for a dtype of `itemsize` bytes, a head dimension, and that many queries of a KV head."""
    shape = {"itemsize": itemsize, "head_dim": head_dim, "num_queries": num_queries}
    return SharedConfig(**_TABLES.first_fit("shared", shape))
