"""Tile sizes, warps and pipeline depths of the expert kernels, chosen for an H100 80GB.

Elsewhere the results are as right, perhaps not as fast. The shapes chosen for are those of DeepSeek-V2-Lite and
Qwen3-30B-A3B at 1 to 8192 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GroupedConfig", "ProductConfig", "RowConfig", "down_row_config", "gate_up_row_config", "grouped_config"]

MAX_ROW_TOKENS = 2
"""Up to here, each row is multiplied by itself: hardly any two of them share an expert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowConfig:
    """How a product of single rows is compiled."""

    block_n: int
    """Features a program; of gate and of up each."""
    max_block_k: int
    """Inputs at a time."""
    num_warps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductConfig:
    """How a grouped product is compiled."""

    block_n: int
    """Features a tile; of gate and of up each."""
    block_k: int
    """Inputs at a time."""
    num_warps: int
    num_stages: int
    """Depth of the software pipeline."""
    features_first: bool
    """Whether the product is computed with a row a feature, so that features, not tokens, fill the matrix unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedConfig:
    """How the products of rows sorted by expert are compiled."""

    block_m: int
    """Rows a tile, of both products."""
    gate_up: ProductConfig
    down: ProductConfig


_GATE_UP_ROW = RowConfig(block_n=2, max_block_k=2048, num_warps=4)
_DOWN_ROW = RowConfig(block_n=4, max_block_k=1024, num_warps=4)


def _product(n: int, k: int, warps: int, stages: int) -> ProductConfig:
    return ProductConfig(block_n=n, block_k=k, num_warps=warps, num_stages=stages, features_first=False)


def _transposed(n: int, k: int, warps: int, stages: int) -> ProductConfig:
    return ProductConfig(block_n=n, block_k=k, num_warps=warps, num_stages=stages, features_first=True)


_GROUPED = (
    (8, GroupedConfig(block_m=16, gate_up=_transposed(64, 128, 4, 3), down=_transposed(64, 128, 4, 4))),
    (32, GroupedConfig(block_m=32, gate_up=_product(64, 128, 4, 3), down=_transposed(128, 128, 8, 4))),
    (96, GroupedConfig(block_m=64, gate_up=_product(64, 64, 4, 4), down=_product(128, 64, 4, 4))),
)
"""By the most rows an expert has on average."""
_MANY_ROWS = GroupedConfig(block_m=128, gate_up=_product(128, 64, 8, 4), down=_product(256, 64, 8, 4))
_FLOAT32 = GroupedConfig(block_m=16, gate_up=_product(32, 32, 4, 1), down=_product(32, 32, 4, 1))


def gate_up_row_config() -> RowConfig:
    """Of the gate and up projections of single rows."""
    return _GATE_UP_ROW


def down_row_config() -> RowConfig:
    """Of the down projections of single rows."""
    return _DOWN_ROW


def grouped_config(*, itemsize: int, num_rows: int, num_experts: int) -> GroupedConfig:
    """By bytes of the dtype and rows an expert."""
    if itemsize > 2:
        return _FLOAT32
    for limit, config in _GROUPED:
        if num_rows <= limit * num_experts:
            return config
    return _MANY_ROWS
