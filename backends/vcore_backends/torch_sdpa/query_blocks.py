"""Cutting causal attention into blocks of queries. It knows only numbers of queries and keys."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["QUERY_BLOCK", "causal_blocks"]

QUERY_BLOCK = 128
"""Queries of a chunk that are computed at a time where they need a mask: more skip less of the masked half."""


def causal_blocks(num_queries: int, num_keys: int, window: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries, each with the keys that any of them sees.

    Args:
        num_queries: the last of them sees the last key, the one before the last but one, and so on; those that would
            see none are in no block.
        num_keys: of the whole context.
        window: how many keys a query sees at most.
    """
    for start in range(max(0, num_queries - num_keys), num_queries, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, num_queries)
        last_key = num_keys - num_queries + stop
        first_key = 0 if window is None else max(0, last_key - (stop - start) - window + 1)
        yield slice(start, stop), slice(first_key, last_key)
