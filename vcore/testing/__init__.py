"""For tests of plugins: contracts of models and policies, models and backends driven by hand, checkpoints that are
dictionaries, fake requests and installations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.testing.attention_batch import *  # noqa: F403
    from vcore.testing.attention_case import *  # noqa: F403
    from vcore.testing.cost_meter import *  # noqa: F403
    from vcore.testing.distributions import *  # noqa: F403
    from vcore.testing.eviction_contract import *  # noqa: F403
    from vcore.testing.fake_hub import *  # noqa: F403
    from vcore.testing.fake_replica import *  # noqa: F403
    from vcore.testing.fake_request import *  # noqa: F403
    from vcore.testing.kept import *  # noqa: F403
    from vcore.testing.latent_case import *  # noqa: F403
    from vcore.testing.memory_checkpoint import *  # noqa: F403
    from vcore.testing.model_case import *  # noqa: F403
    from vcore.testing.model_contract import *  # noqa: F403
    from vcore.testing.model_driver import *  # noqa: F403
    from vcore.testing.named_cache import *  # noqa: F403
    from vcore.testing.policy_case import *  # noqa: F403
    from vcore.testing.routing_contract import *  # noqa: F403
    from vcore.testing.scheduling_contract import *  # noqa: F403
    from vcore.testing.simulated_engine import *  # noqa: F403
    from vcore.testing.simulated_fleet import *  # noqa: F403
    from vcore.testing.starvation_watch import *  # noqa: F403
    from vcore.testing.tape_recorder import *  # noqa: F403
    from vcore.testing.thread_collective import *  # noqa: F403
    from vcore.testing.tiny_checkpoint import *  # noqa: F403

_EXPORTS = {
    "attention_batch": ("build_attention_metadata",),
    "attention_case": ("AttentionCase",),
    "cost_meter": ("CostMeter",),
    "distributions": ("write_distribution",),
    "eviction_contract": ("CacheLife", "EvictionPolicyContract"),
    "fake_hub": ("FakeHub", "serve_hub"),
    "fake_replica": ("FakeReplica",),
    "fake_request": ("FakeRequest",),
    "kept": ("count_kept",),
    "latent_case": ("LatentCase", "RaggedCase", "build_ragged_batch"),
    "memory_checkpoint": ("MemoryCheckpoint",),
    "model_case": ("NUM_GREEDY", "ModelCase"),
    "model_contract": ("ModelContract",),
    "model_driver": ("ModelDriver",),
    "named_cache": ("NamedCache",),
    "policy_case": ("PolicyCase",),
    "routing_contract": ("RoutingPolicyContract",),
    "scheduling_contract": ("SchedulingPolicyContract",),
    "simulated_engine": ("SimulatedEngine",),
    "simulated_fleet": ("SimulatedFleet",),
    "starvation_watch": ("StarvationWatch",),
    "tape_recorder": ("TapeRecorder",),
    "thread_collective": ("ThreadCollective",),
    "tiny_checkpoint": ("TinyCheckpoint",),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
