"""What a model needs, in lines for people: weights and KV cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcore.engine.outline import CacheKind, ModelOutline

__all__ = ["cache_line", "mebibytes", "outline_as_dict", "weights_line"]


def weights_line(outline: ModelOutline, dtype: str, ranks: int = 1) -> str:
    """Parameters and bytes, as ``Weights: 1,000 parameters, 0.0 MiB in bfloat16.``"""
    return (
        f"Weights: {outline.num_parameters:,} parameters, {mebibytes(outline.weight_bytes)} in {dtype}{_rank(ranks)}."
    )


def cache_line(outline: ModelOutline, block_size: int, max_model_len: int, max_chunk: int, ranks: int = 1) -> str:
    """Bytes a token and a request, by kinds of layers."""
    kinds = outline.cache_kinds
    if not kinds:
        return "KV cache: none."
    per_token = f"KV cache: {outline.kv_bytes_per_token(block_size):,} bytes a token{_rank(ranks)}"
    if len(kinds) == 1 and kinds[0].window is None:
        each = kinds[0].bytes_per_token(block_size)
        parts = f"({_layers(kinds[0].num_layers)}, {each:,} bytes a layer)"
    else:
        parts = f"({'; '.join(_kind(kind, block_size) for kind in kinds)})"
    request = mebibytes(outline.kv_bytes_per_request(max_model_len, block_size, max_chunk))
    return f"{per_token} {parts}, {request} for one request of {max_model_len:,} tokens."


def outline_as_dict(outline: ModelOutline, block_size: int) -> dict[str, Any]:
    """As data for JSON; bytes, a rank."""
    return {
        "num_parameters": outline.num_parameters,
        "weight_bytes": outline.weight_bytes,
        "kv_bytes_per_token": outline.kv_bytes_per_token(block_size),
        "kv_cache": [
            {"num_layers": kind.num_layers, "bytes_per_token": kind.bytes_per_token(block_size), "window": kind.window}
            for kind in outline.cache_kinds
        ],
    }


def mebibytes(num_bytes: int) -> str:
    """``"1,234.5 MiB"``."""
    return f"{num_bytes / 2**20:,.1f} MiB"


def _kind(kind: CacheKind, block_size: int) -> str:
    kept = "every token" if kind.window is None else f"the last {kind.window:,}"
    return f"{_layers(kind.num_layers)} of {kind.bytes_per_token(block_size):,} bytes, keeping {kept}"


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _rank(ranks: int) -> str:
    return "" if ranks == 1 else " a rank"
