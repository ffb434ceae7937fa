"""Registers the eviction policies."""

from __future__ import annotations

from vcore.plugins import EvictionPolicySpec, hookimpl

_HERE = "vcore_policies.eviction"


@hookimpl
def vcore_eviction_policies() -> list[EvictionPolicySpec]:
    """Those without options, then those with."""
    return [
        EvictionPolicySpec(
            name="fifo",
            load=f"{_HERE}.fifo:FIFOEviction",
            api="1.0",
            summary="The block that was cached first goes first",
        ),
        EvictionPolicySpec(
            name="lru",
            load=f"{_HERE}.lru:LRUEviction",
            api="1.0",
            summary="The block that nobody has used for longest goes first",
            rank=10,
        ),
        EvictionPolicySpec(
            name="priority",
            load=f"{_HERE}.priority:PriorityEviction",
            api="1.0",
            summary="Blocks of the least urgent requests go first",
        ),
        EvictionPolicySpec(
            name="lfu",
            load=f"{_HERE}.lfu:LFUEviction",
            options=f"{_HERE}.options:LFUOptions",
            api="1.0",
            summary="The block whose content was used least often goes first; uses may decay",
        ),
        EvictionPolicySpec(
            name="slru",
            load=f"{_HERE}.slru:SLRUEviction",
            options=f"{_HERE}.options:SLRUOptions",
            api="1.0",
            summary="LRU in two segments: what was used once goes before what was used again",
        ),
        EvictionPolicySpec(
            name="s3fifo",
            load=f"{_HERE}.s3fifo:S3FIFOEviction",
            options=f"{_HERE}.options:S3FIFOOptions",
            api="1.0",
            summary="Newcomers pass a small queue first; what comes back soon skips it",
        ),
        EvictionPolicySpec(
            name="ttl",
            load=f"{_HERE}.ttl:TTLPinnedEviction",
            options=f"{_HERE}.options:TTLPinnedOptions",
            api="1.0",
            summary="LRU, where a request may ask to keep its prefix for a time",
        ),
        EvictionPolicySpec(
            name="cost_aware",
            load=f"{_HERE}.cost_aware:CostAwareEviction",
            options=f"{_HERE}.options:CostAwareOptions",
            api="1.0",
            summary="What is cheap to compute again goes first, leaves before what they follow",
        ),
        EvictionPolicySpec(
            name="prefix_aware",
            load=f"{_HERE}.prefix_aware:PrefixAwareEviction",
            options=f"{_HERE}.options:PrefixAwareOptions",
            api="1.0",
            summary="Learns how soon blocks of each kind are used again; the fewest hits for their room go first",
        ),
    ]
