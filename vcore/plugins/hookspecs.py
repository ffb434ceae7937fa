"""The hooks that a plugin's registration module may implement, and the marker to write before each.

    from vcore.plugins import EvictionPolicySpec, hookimpl

    @hookimpl
    def vcore_eviction_policies():
        return [EvictionPolicySpec(name="mru", load="my_package.mru:MRUEviction", api="1.0")]

Hooks are called once, while the engine is composed; none runs in a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from vcore.plugins.specs import (
    AttentionBackendSpec,
    EvictionPolicySpec,
    ExecutorSpec,
    LogitsProcessorSpec,
    ModelSourceSpec,
    ModelSpec,
    ObserverSpec,
    PluginKind,
    ReasoningParserSpec,
    RoutingPolicySpec,
    SchedulingPolicySpec,
    ToolParserSpec,
    WeightLoaderSpec,
)

__all__ = ["ENTRY_POINT_GROUP", "HOOKS", "PROJECT_NAME", "hookimpl", "hookspec"]

PROJECT_NAME = "vcore"
ENTRY_POINT_GROUP = "vcore"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec
def vcore_models() -> Sequence[ModelSpec]:  # type: ignore[empty-body]  # a hookspec has no body
    """Model architectures."""


@hookspec
def vcore_attention_backends() -> Sequence[AttentionBackendSpec]:  # type: ignore[empty-body]
    """Attention backends."""


@hookspec
def vcore_scheduling_policies() -> Sequence[SchedulingPolicySpec]:  # type: ignore[empty-body]
    """Scheduling policies."""


@hookspec
def vcore_eviction_policies() -> Sequence[EvictionPolicySpec]:  # type: ignore[empty-body]
    """Eviction policies of the prefix cache."""


@hookspec
def vcore_routing_policies() -> Sequence[RoutingPolicySpec]:  # type: ignore[empty-body]
    """Routing policies of a fleet of replicas."""


@hookspec
def vcore_weight_loaders() -> Sequence[WeightLoaderSpec]:  # type: ignore[empty-body]
    """Weight loaders, one or more file formats each."""


@hookspec
def vcore_model_sources() -> Sequence[ModelSourceSpec]:  # type: ignore[empty-body]
    """Model sources: where a model's files come from."""


@hookspec
def vcore_executors() -> Sequence[ExecutorSpec]:  # type: ignore[empty-body]
    """Executors: what runs the ranks."""


@hookspec
def vcore_logits_processors() -> Sequence[LogitsProcessorSpec]:  # type: ignore[empty-body]
    """Logits processors that requests may ask for by name."""


@hookspec
def vcore_observers() -> Sequence[ObserverSpec]:  # type: ignore[empty-body]
    """Observers of the engine's events."""


@hookspec
def vcore_tool_parsers() -> Sequence[ToolParserSpec]:  # type: ignore[empty-body]
    """Parsers of tool calls in a model's text."""


@hookspec
def vcore_reasoning_parsers() -> Sequence[ReasoningParserSpec]:  # type: ignore[empty-body]
    """Parsers of reasoning in a model's text."""


HOOKS: dict[str, PluginKind] = {
    "vcore_models": PluginKind.MODEL,
    "vcore_attention_backends": PluginKind.ATTENTION_BACKEND,
    "vcore_scheduling_policies": PluginKind.SCHEDULING_POLICY,
    "vcore_eviction_policies": PluginKind.EVICTION_POLICY,
    "vcore_routing_policies": PluginKind.ROUTING_POLICY,
    "vcore_weight_loaders": PluginKind.WEIGHT_LOADER,
    "vcore_model_sources": PluginKind.MODEL_SOURCE,
    "vcore_executors": PluginKind.EXECUTOR,
    "vcore_logits_processors": PluginKind.LOGITS_PROCESSOR,
    "vcore_observers": PluginKind.OBSERVER,
    "vcore_tool_parsers": PluginKind.TOOL_PARSER,
    "vcore_reasoning_parsers": PluginKind.REASONING_PARSER,
}
"""Every hook, with the kind of the specs that it returns."""
