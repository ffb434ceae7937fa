"""The KV cache: what a layer's cache looks like, who uses which block, and which blocks can be found again.

Names are loaded when first used: the bookkeeping needs no torch, the specs do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.kv_cache.block_hash import *  # noqa: F403
    from vcore.kv_cache.block_map import *  # noqa: F403
    from vcore.kv_cache.block_pool import *  # noqa: F403
    from vcore.kv_cache.layout import *  # noqa: F403
    from vcore.kv_cache.manager import *  # noqa: F403
    from vcore.kv_cache.needs import *  # noqa: F403
    from vcore.kv_cache.policy_standing import *  # noqa: F403
    from vcore.kv_cache.pool_view import *  # noqa: F403
    from vcore.kv_cache.prefix import *  # noqa: F403
    from vcore.kv_cache.spec import *  # noqa: F403

_EXPORTS = {
    "block_hash": ("BlockHashChain",),
    "block_map": ("BlockMap", "block_map"),
    "block_pool": ("BlockPool",),
    "layout": ("CacheGroup", "CacheLayout", "build_cache_layout"),
    "manager": ("FilledBlock", "KVCacheManager", "RequestBlocks"),
    "needs": ("BlockNeeds",),
    "policy_standing": ("POLICY_FAULTS", "PolicyStanding"),
    "pool_view": ("PoolView",),
    "prefix": ("PrefixFinder", "PrefixMatch"),
    "spec": ("FullAttentionSpec", "KVCacheSpec", "LatentCacheSpec", "SlidingWindowSpec"),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
