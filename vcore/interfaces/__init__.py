"""The narrow waist: what plugins implement, and the data that passes through.

Names are loaded when first used, so that importing one interface does not import torch for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.interfaces.attention import *  # noqa: F403
    from vcore.interfaces.chat_format import *  # noqa: F403
    from vcore.interfaces.collective import *  # noqa: F403
    from vcore.interfaces.eviction import *  # noqa: F403
    from vcore.interfaces.executor import *  # noqa: F403
    from vcore.interfaces.hf_config import *  # noqa: F403
    from vcore.interfaces.logits import *  # noqa: F403
    from vcore.interfaces.model import *  # noqa: F403
    from vcore.interfaces.observer import *  # noqa: F403
    from vcore.interfaces.request_wishes import *  # noqa: F403
    from vcore.interfaces.routing import *  # noqa: F403
    from vcore.interfaces.scheduling import *  # noqa: F403
    from vcore.interfaces.sources import *  # noqa: F403
    from vcore.interfaces.step import *  # noqa: F403
    from vcore.interfaces.weights import *  # noqa: F403

_EXPORTS = {
    "attention": (
        "AttentionBackend",
        "AttentionBackendContext",
        "AttentionContext",
        "AttentionLayer",
        "AttentionMetadata",
        "GroupContext",
        "LatentAttentionLayer",
        "LatentSpec",
        "LayerSpec",
        "RaggedBatch",
    ),
    "chat_format": (
        "ChatFormatContext",
        "ReasoningDelta",
        "ReasoningParser",
        "TextDelta",
        "Tool",
        "ToolDelta",
        "ToolParser",
        "held_back",
    ),
    "collective": ("Collective",),
    "eviction": ("BlockView", "EvictionContext", "EvictionPolicy"),
    "executor": ("Executor", "ExecutorContext", "Runner", "RunnerFactory", "StepHandle"),
    "hf_config": ("HFConfig",),
    "logits": ("LogitsProcessor", "LogitsProcessorContext", "ProcessorRow"),
    "model": ("BuildContext", "Model"),
    "observer": ("Observer", "ObserverContext", "ObserverEvent"),
    "request_wishes": ("RequestWishes",),
    "routing": ("ArrivalView", "ReplicaView", "RoutingContext", "RoutingPolicy"),
    "scheduling": ("QueueingPolicy", "RequestView", "SchedulingContext", "SchedulingPolicy"),
    "sources": ("ModelLicence", "ModelSource", "ModelSourceContext", "ProgressCallback"),
    "step": ("NewRow", "SampledTokens", "SchedulerOutput", "TokenLogprobs"),
    "weights": ("CheckpointReader", "TensorInfo", "WeightLoader", "WeightLoaderContext"),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
