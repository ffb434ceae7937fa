"""What a spec must satisfy before it enters the catalog. Authors make these slips; each gets its own sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from vcore.plugins.api_versions import ApiVersion
from vcore.plugins.distributions import requirement_problem
from vcore.plugins.lazy_string import check_lazy_string
from vcore.plugins.specs import (
    AttentionBackendSpec,
    AttentionCapabilities,
    LogitsProcessorSpec,
    ModelSourceSpec,
    ModelSpec,
    ObserverSpec,
    PluginSpec,
    ReasoningParserSpec,
    ToolParserSpec,
)

__all__ = ["name_faults", "spec_faults"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_STRING_TUPLES = ("requires", "architectures", "formats", "suffixes", "schemes", "models", "templates")
_MUST_NOT_BE_EMPTY = ("architectures", "formats", "schemes")
_FEATURES = frozenset({"sliding_window", "soft_cap", "sinks", "mla", "non_causal", "return_lse"})
_MODEL_FEATURES = frozenset(
    {
        "sliding_window",
        "soft_cap",
        "sinks",
        "qk_norm",
        "rope_scaling",
        "moe",
        "mla",
        "tied_embeddings",
        "tensor_parallel",
    }
)
_FUSES = frozenset({"qk_norm", "rope", "kv_write"})
_GRAPH_SUPPORT = ("none", "decode", "uniform", "mixed")
_EVENTS = frozenset({"step", "finished"})
_FORMS = frozenset({"json_schema", "json_object", "regex", "choice", "grammar", "structural_tag"})


def spec_faults(spec: PluginSpec, *, own_module: bool) -> list[str]:
    """What is wrong with `spec`, a sentence each; empty if nothing is.

    Args:
        spec: of the right class; its fields may hold anything.
        own_module: whether lazy strings may be ``":Attribute"``.
    """
    faults = [*name_faults(spec.name), *_lazy_faults(spec, own_module), *_plain_faults(spec), *_tuple_faults(spec)]
    if isinstance(spec, ModelSourceSpec) and spec.pattern is not None:
        faults += _try(lambda: re.compile(spec.pattern or ""), "pattern is not a regular expression: {}")
    if isinstance(spec, ToolParserSpec | ReasoningParserSpec) and isinstance(spec.templates, tuple):
        for pattern in spec.templates:
            if isinstance(pattern, str):
                faults += _try(lambda text=pattern: re.compile(text), "templates has no regular expression: {}")  # type: ignore[misc]
    if isinstance(spec, LogitsProcessorSpec):
        faults += _subset_faults("structured_output", spec.structured_output, _FORMS)
    if isinstance(spec, ModelSpec):
        faults += _subset_faults("features", spec.features, _MODEL_FEATURES)
    if isinstance(spec, AttentionBackendSpec):
        faults += _capability_faults(spec.capabilities)
    if isinstance(spec, ObserverSpec):
        faults += _subset_faults("events", spec.events, _EVENTS)
    return faults


def name_faults(name: object) -> Iterator[str]:
    """What is wrong with the name of a plugin, a sentence each."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        yield f"name={name!r}: expected lower case letters, digits, '_', '-' and '.', such as 'my-plugin'"
    elif name == "auto":
        yield "name='auto' is what users write to leave the choice to vcore; choose another name"


def _lazy_faults(spec: PluginSpec, own_module: bool) -> Iterator[str]:
    for field, value in (("load", spec.load), ("options", spec.options)):
        if isinstance(value, str):
            fault = check_lazy_string(value, own_module=own_module)
            if fault:
                yield f"{field}={fault}"
    if not isinstance(spec.load, str) and not callable(spec.load):
        yield f"load={spec.load!r}: expected 'package.module:Attribute', or in a notebook the class itself"
    if spec.options is not None and not isinstance(spec.options, str | type):
        yield f"options={spec.options!r}: expected 'package.module:Class', the class itself, or None"


def _plain_faults(spec: PluginSpec) -> Iterator[str]:
    if isinstance(spec.api, str):
        yield from _try(lambda: ApiVersion.parse(spec.api), "{}")
    else:
        yield f"api={spec.api!r}: expected a string 'MAJOR.MINOR', such as '1.0'"
    if not isinstance(spec.summary, str):
        yield f"summary={spec.summary!r}: expected a string"
    if not isinstance(spec.rank, int) or isinstance(spec.rank, bool):
        yield f"rank={spec.rank!r}: expected an integer"


def _tuple_faults(spec: PluginSpec) -> Iterator[str]:
    for field in _STRING_TUPLES:
        value = getattr(spec, field, ())
        if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
            example = f"({value!r},)" if isinstance(value, str) else "('x',)"
            yield f"{field}={value!r}: expected a tuple of strings, such as {example}"
        elif not value and field in _MUST_NOT_BE_EMPTY and hasattr(spec, field):
            yield f"{field} is empty, so that nothing could ever look it up"
    if isinstance(spec.requires, tuple):
        for requirement in spec.requires:
            if isinstance(requirement, str):
                yield from _try(lambda text=requirement: requirement_problem(text), "{}")  # type: ignore[misc]  # it returns str | None


def _capability_faults(capabilities: object) -> Iterator[str]:
    if not isinstance(capabilities, AttentionCapabilities):
        yield f"capabilities={capabilities!r}: expected an AttentionCapabilities"
        return
    for field in ("devices", "dtypes", "head_dims", "block_sizes"):
        value = getattr(capabilities, field)
        if value is not None and not isinstance(value, tuple):
            yield f"capabilities.{field}={value!r}: expected a tuple"
    for field, known in (("features", _FEATURES), ("fuses", _FUSES)):
        yield from _subset_faults(f"capabilities.{field}", getattr(capabilities, field), known)
    if capabilities.graph_support not in _GRAPH_SUPPORT:
        yield f"capabilities.graph_support={capabilities.graph_support!r}: expected one of {_GRAPH_SUPPORT}"


def _subset_faults(field: str, value: object, known: frozenset[str]) -> Iterator[str]:
    if not isinstance(value, frozenset | set):
        yield f"{field}={value!r}: expected a frozenset"
    elif not value <= known:
        unknown = ", ".join(sorted(map(repr, value - known)))
        yield f"{field} has {unknown}; the core knows {', '.join(sorted(known))}"


def _try(action: Callable[[], object], message: str) -> Iterator[str]:
    try:
        action()
    except (ValueError, re.error) as error:
        yield message.format(error)
