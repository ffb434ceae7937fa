"""What a policy would do with recorded traffic, without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.simulate.cache_replay import *  # noqa: F403
    from vcore.simulate.cache_report import *  # noqa: F403
    from vcore.simulate.deployment import *  # noqa: F403
    from vcore.simulate.optimum import *  # noqa: F403
    from vcore.simulate.settings import *  # noqa: F403
    from vcore.simulate.simulation import *  # noqa: F403
    from vcore.simulate.step_log import *  # noqa: F403
    from vcore.simulate.step_time import *  # noqa: F403
    from vcore.simulate.step_time_fit import *  # noqa: F403

_EXPORTS = {
    "cache_replay": ("CacheCounts", "CacheReplay", "replay_cache"),
    "cache_report": ("find_evictions", "report_cache"),
    "deployment": ("Deployment", "read_deployment"),
    "optimum": ("ideal_cache", "optimal_cache"),
    "settings": ("FleetOptions", "Policies", "SimulationSettings", "resolve_settings"),
    "simulation": ("Simulation", "simulate"),
    "step_log": ("StepEntry", "StepLog", "recorder_spec"),
    "step_time": ("StepLoad", "StepTime", "StepTimeModel"),
    "step_time_fit": ("fit_step_time", "relative_errors"),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
