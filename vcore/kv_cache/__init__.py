"""The KV cache: what a layer's cache looks like, who uses which block, and which blocks can be found again.

Names are loaded when first used: the bookkeeping needs no torch, the specs do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.kv_cache.block_hash import *  # noqa: F403
    from vcore.kv_cache.block_pool import *  # noqa: F403
    from vcore.kv_cache.manager import *  # noqa: F403
    from vcore.kv_cache.policy_standing import *  # noqa: F403
    from vcore.kv_cache.spec import *  # noqa: F403

_EXPORTS = {
    "block_hash": ("BlockHashChain",),
    "block_pool": ("BlockPool", "PoolView"),
    "manager": ("FilledBlock", "KVCacheManager", "PrefixMatch", "RequestBlocks"),
    "policy_standing": ("POLICY_FAULTS", "PolicyStanding"),
    "spec": ("FullAttentionSpec", "KVCacheSpec"),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
