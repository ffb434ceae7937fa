"""Tile sizes, warps, pipeline depths and split counts of the kernels: `configs.json`, read once.

The table was made for the device that it names; elsewhere the results are as right, perhaps not as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vcore_backends.config_tables import ConfigTables

__all__ = ["AbsorbedConfig", "RaggedConfig", "chunk_config", "decode_config", "ragged_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorbedConfig:
    """How the kernel of the absorbed form, and the one that merges its splits, are compiled and spread."""

    rows: int
    """Rows of a tile: heads, times queries."""
    block_n: int
    """Cached tokens a tile."""
    num_warps: int
    num_stages: int
    """Depth of the software pipeline."""
    programs_per_sm: int
    """Programs launched, over all heads, for each multiprocessor."""
    keys_first: bool
    """Whether scores are computed with a row a key, so that the keys, not the heads, fill the matrix unit's rows."""
    merge_block: int
    """Partial results merged at a time."""
    merge_warps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedConfig:
    """How the kernel of the up-projected form is compiled."""

    block_m: int
    """Queries a tile."""
    block_n: int
    """Keys a tile."""
    num_warps: int
    num_stages: int
    """Depth of the software pipeline."""


_TABLES = ConfigTables(Path(__file__).with_name("configs.json"))


@cache
def decode_config(*, itemsize: int, num_heads: int, num_requests: int) -> AbsorbedConfig:
    """For one query a request: by bytes of the dtype, heads and batch size."""
    shape = {"itemsize": itemsize, "num_heads": num_heads, "num_requests": num_requests}
    return AbsorbedConfig(**_TABLES.first_fit("decode", shape))


@cache
def chunk_config(*, itemsize: int) -> AbsorbedConfig:
    """For several queries a request."""
    return AbsorbedConfig(**_TABLES.first_fit("chunk", {"itemsize": itemsize}))


@cache
def ragged_config(*, itemsize: int, max_query_len: int) -> RaggedConfig:
    """For keys and values at hand: by bytes of the dtype and the step's longest chunk."""
    return RaggedConfig(**_TABLES.first_fit("ragged", {"itemsize": itemsize, "max_query_len": max_query_len}))
