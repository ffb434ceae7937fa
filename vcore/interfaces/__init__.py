"""The narrow waist: what plugins implement, and the data that passes through.

Names are loaded when first used, so that importing one interface does not import torch for another.
"""

from __future__ import annotations

from vcore._lazy import lazy_exports

_EXPORTS = {
    "attention": (
        "AttentionBackend",
        "AttentionBackendContext",
        "AttentionContext",
        "AttentionLayer",
        "AttentionMetadata",
        "LayerSpec",
    ),
    "collective": ("Collective",),
    "eviction": ("BlockView", "EvictionContext", "EvictionPolicy"),
    "executor": ("Executor", "ExecutorContext", "Runner", "RunnerFactory", "StepHandle"),
    "hf_config": ("HFConfig",),
    "logits": ("LogitsProcessor", "LogitsProcessorContext", "ProcessorRow"),
    "model": ("BuildContext", "Model"),
    "observer": ("Observer", "ObserverContext", "ObserverEvent"),
    "scheduling": ("RequestView", "SchedulingContext", "SchedulingPolicy"),
    "sources": ("ModelSource", "ModelSourceContext", "ProgressCallback"),
    "step": ("NewRow", "SampledTokens", "SchedulerOutput", "TokenLogprobs"),
    "weights": ("CheckpointReader", "TensorInfo", "WeightLoader", "WeightLoaderContext"),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
