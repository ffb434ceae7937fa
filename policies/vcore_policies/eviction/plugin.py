"""Registers the eviction policies."""

from __future__ import annotations

from vcore.plugins import EvictionPolicySpec, hookimpl


@hookimpl
def vcore_eviction_policies() -> list[EvictionPolicySpec]:
    """FIFO and LRU."""
    return [
        EvictionPolicySpec(
            name="fifo",
            load="vcore_policies.eviction.fifo:FIFOEviction",
            api="1.0",
            summary="The block that was cached first goes first",
        ),
        EvictionPolicySpec(
            name="lru",
            load="vcore_policies.eviction.lru:LRUEviction",
            api="1.0",
            summary="The block that nobody has used for longest goes first",
            rank=10,
        ),
    ]
