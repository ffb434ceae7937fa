"""What a plugin says of itself: one frozen spec a plugin, read without importing the plugin's code.

A spec is data. `load` is a lazy ``"package.module:Attribute"`` string (in a notebook it may hold the
class itself) that names a callable taking only the keywords ``options`` and ``context``; what the
context holds is stated by the interface of the kind, in `vcore.interfaces`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

__all__ = [
    "ANY_ARCHITECTURE",
    "SPEC_TYPES",
    "AttentionBackendSpec",
    "AttentionCapabilities",
    "EvictionPolicySpec",
    "ExecutorSpec",
    "LogitsProcessorSpec",
    "ModelSourceSpec",
    "ModelSpec",
    "ObserverSpec",
    "PluginKind",
    "PluginSpec",
    "ReasoningParserSpec",
    "RoutingPolicySpec",
    "SchedulingPolicySpec",
    "ToolParserSpec",
    "WeightLoaderSpec",
]


class PluginKind(StrEnum):
    """The kinds of plugin. The value is the word used in addresses such as ``model/llama``."""

    MODEL = "model"
    ATTENTION_BACKEND = "attention_backend"
    SCHEDULING_POLICY = "scheduling_policy"
    EVICTION_POLICY = "eviction_policy"
    ROUTING_POLICY = "routing_policy"
    WEIGHT_LOADER = "weight_loader"
    MODEL_SOURCE = "model_source"
    EXECUTOR = "executor"
    LOGITS_PROCESSOR = "logits_processor"
    OBSERVER = "observer"
    TOOL_PARSER = "tool_parser"
    REASONING_PARSER = "reasoning_parser"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec:
    """What every kind of plugin states."""

    kind: ClassVar[PluginKind]

    name: str
    """The name that users write in a configuration, e.g. ``"lru"``: lower case, digits, ``_``, ``-``, ``.``."""
    load: str | Callable[..., object]
    """``"package.module:Attribute"``; called with the keywords ``options`` and ``context`` alone."""
    api: str
    """``"MAJOR.MINOR"`` of this kind's contract that the plugin was written for; always a literal."""
    options: str | type | None = None
    """``"package.module:Class"`` of a `vcore.config.PluginOptions` subclass, or None if it takes no options."""
    summary: str = ""
    """One line for ``vcore plugins list``."""
    rank: int = 0
    """Where several can do a job and the choice is ``auto``, the highest rank is taken."""
    requires: tuple[str, ...] = ()
    """PEP 508 requirements, checked against installed metadata, never by importing."""


ANY_ARCHITECTURE = "*"
"""In `ModelSpec.architectures`: whatever the plugin is given by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(PluginSpec):
    """A model architecture. `load` names a class or function that returns a `vcore.interfaces.Model`."""

    kind: ClassVar[PluginKind] = PluginKind.MODEL

    architectures: tuple[str, ...]
    """Values of ``architectures`` in config.json that it serves, e.g. ``("LlamaForCausalLM",)``. ``("*",)``: whatever
    ``model.plugin`` or ``model.fallback`` gives it; it is never found by an architecture's name."""
    quantizations: frozenset[str] = frozenset()
    """Values of ``quantization_config.quant_method`` in config.json that it loads; others are refused."""
    features: frozenset[str] = frozenset()
    """What its checkpoints may have that not every model has, for ``vcore models list``. Out of: ``sliding_window``,
    ``soft_cap``, ``sinks``, ``qk_norm``, ``rope_scaling``, ``moe``, ``mla``, ``tied_embeddings``,
    ``tensor_parallel`` (it can be split over ranks)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCapabilities:
    """All that a backend can do. What is not listed here is refused: capabilities are positive."""

    devices: tuple[str, ...]
    """torch device types, e.g. ``("cpu", "cuda")``; ``"*"`` means any."""
    dtypes: tuple[str, ...]
    """e.g. ``("float32", "bfloat16")``."""
    head_dims: tuple[int, ...] | None
    """Supported head dimensions; None means any."""
    block_sizes: tuple[int, ...] | None
    """Kernel block sizes, any multiple of which the cache may use; None means any."""
    features: frozenset[str] = frozenset()
    """Out of: ``sliding_window``, ``soft_cap``, ``sinks``, ``mla``, ``non_causal``, ``return_lse``."""
    graph_support: str = "none"
    """CUDA-graph capture: ``none``, ``decode``, ``uniform`` or ``mixed``. Steps of decode rows are captured for all but
    ``none``: a plan then depends on the host's numbers only through shapes, and lengths are read on the device."""
    fuses: frozenset[str] = frozenset()
    """Out of ``qk_norm``, ``rope``, ``kv_write``: what the backend does itself instead of the core. Layers of this
    version leave only ``kv_write`` to it; a backend that fuses more is not chosen."""
    min_compute_capability: tuple[int, int] | None = None
    """The lowest CUDA compute capability, e.g. ``(9, 0)``; None where it does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionBackendSpec(PluginSpec):
    """An attention backend. `load` returns a `vcore.interfaces.AttentionBackend`."""

    kind: ClassVar[PluginKind] = PluginKind.ATTENTION_BACKEND

    capabilities: AttentionCapabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingPolicySpec(PluginSpec):
    """A scheduling policy. `load` returns a `vcore.interfaces.SchedulingPolicy`."""

    kind: ClassVar[PluginKind] = PluginKind.SCHEDULING_POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionPolicySpec(PluginSpec):
    """An eviction policy. `load` returns a `vcore.interfaces.EvictionPolicy`."""

    kind: ClassVar[PluginKind] = PluginKind.EVICTION_POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPolicySpec(PluginSpec):
    """A routing policy. `load` returns a `vcore.interfaces.RoutingPolicy`."""

    kind: ClassVar[PluginKind] = PluginKind.ROUTING_POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLoaderSpec(PluginSpec):
    """A weight loader. `load` returns a `vcore.interfaces.WeightLoader`."""

    kind: ClassVar[PluginKind] = PluginKind.WEIGHT_LOADER

    formats: tuple[str, ...]
    """The look-up keys for ``model.load_format``, e.g. ``("safetensors",)``."""
    suffixes: tuple[str, ...] = ()
    """File name endings by which ``auto`` recognises the format, e.g. ``(".safetensors",)``; none: only by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSourceSpec(PluginSpec):
    """Where models come from. `load` returns a `vcore.interfaces.ModelSource`."""

    kind: ClassVar[PluginKind] = PluginKind.MODEL_SOURCE

    schemes: tuple[str, ...]
    """URI schemes, the look-up key of ``scheme://name``, e.g. ``("hf",)``."""
    models: tuple[str, ...] = ()
    """Short names it supplies, e.g. ``("smollm2-135m",)``."""
    pattern: str | None = None
    """A regular expression that a bare name (no scheme, no such path, no short name) must match in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSpec(PluginSpec):
    """An executor. `load` returns a `vcore.interfaces.Executor`."""

    kind: ClassVar[PluginKind] = PluginKind.EXECUTOR

    max_world_size: int | None = 1
    """The most ranks it can run; None means any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitsProcessorSpec(PluginSpec):
    """A logits processor that requests may ask for. `load` returns a `vcore.interfaces.LogitsProcessor`."""

    kind: ClassVar[PluginKind] = PluginKind.LOGITS_PROCESSOR

    structured_output: frozenset[str] = frozenset()
    """The forms of `vcore.StructuredOutput` that it enforces: ``json_schema``, ``json_object``, ``regex``, ``choice``,
    ``grammar``, ``structural_tag``. A request's form arrives as its arguments, under the names of the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverSpec(PluginSpec):
    """An observer of the engine's events. `load` returns a `vcore.interfaces.Observer`."""

    kind: ClassVar[PluginKind] = PluginKind.OBSERVER

    events: frozenset[str] = field(default_factory=lambda: frozenset({"step", "finished"}))
    """The events it wants, out of ``step`` and ``finished``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolParserSpec(PluginSpec):
    """A format of tool calls. `load` returns a `vcore.interfaces.ToolParser`."""

    kind: ClassVar[PluginKind] = PluginKind.TOOL_PARSER

    templates: tuple[str, ...] = ()
    """Regular expressions; if one is found in a model's chat template, ``auto`` may take the parser. None: only by
    name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningParserSpec(PluginSpec):
    """A format of reasoning. `load` returns a `vcore.interfaces.ReasoningParser`."""

    kind: ClassVar[PluginKind] = PluginKind.REASONING_PARSER

    templates: tuple[str, ...] = ()
    """As in `ToolParserSpec`."""


SPEC_TYPES: dict[PluginKind, type[PluginSpec]] = {
    spec.kind: spec
    for spec in (
        ModelSpec,
        AttentionBackendSpec,
        SchedulingPolicySpec,
        EvictionPolicySpec,
        RoutingPolicySpec,
        WeightLoaderSpec,
        ModelSourceSpec,
        ExecutorSpec,
        LogitsProcessorSpec,
        ObserverSpec,
        ToolParserSpec,
        ReasoningParserSpec,
    )
}
"""The spec class of each kind."""
