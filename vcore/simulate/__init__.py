"""What a policy would do with recorded traffic, without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.simulate.cache_replay import *  # noqa: F403
    from vcore.simulate.cache_report import *  # noqa: F403
    from vcore.simulate.optimum import *  # noqa: F403

_EXPORTS = {
    "cache_replay": ("CacheCounts", "CacheReplay", "replay_cache"),
    "cache_report": ("report_cache",),
    "optimum": ("ideal_cache", "optimal_cache"),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
