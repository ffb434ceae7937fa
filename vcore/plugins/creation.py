"""From a catalog entry to an instance: lazy import, options, factory, interface, contract version.

This is the first moment at which a plugin's own code is imported. Whatever goes wrong is a
`PluginBrokenError` (or `PluginOptionsError`) that names kind, name, distribution and version, what
was expected, what was found and what to do, with the cause chained.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcore.errors import PluginOptionsError, VcoreError
from vcore.plugins.api_versions import SERVED_APIS, ApiVersion
from vcore.plugins.complaints import broken_error, raise_first_unusable
from vcore.plugins.deprecations import warn_of_deprecations
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.import_guard import describe_exception
from vcore.plugins.lazy_string import load_lazy_string
from vcore.plugins.specs import PluginKind, PluginSpec

if TYPE_CHECKING:
    from pydantic import ValidationError

    from vcore.config import PluginOptions

__all__ = [
    "INTERFACES",
    "check_loadable",
    "create_plugin",
    "load_factory",
    "load_options_model",
    "parse_plugin_options",
]

INTERFACES: dict[PluginKind, str] = {
    PluginKind.MODEL: "vcore.interfaces.model:Model",
    PluginKind.ATTENTION_BACKEND: "vcore.interfaces.attention:AttentionBackend",
    PluginKind.SCHEDULING_POLICY: "vcore.interfaces.scheduling:SchedulingPolicy",
    PluginKind.EVICTION_POLICY: "vcore.interfaces.eviction:EvictionPolicy",
    PluginKind.ROUTING_POLICY: "vcore.interfaces.routing:RoutingPolicy",
    PluginKind.WEIGHT_LOADER: "vcore.interfaces.weights:WeightLoader",
    PluginKind.MODEL_SOURCE: "vcore.interfaces.sources:ModelSource",
    PluginKind.EXECUTOR: "vcore.interfaces.executor:Executor",
    PluginKind.LOGITS_PROCESSOR: "vcore.interfaces.logits:LogitsProcessor",
    PluginKind.OBSERVER: "vcore.interfaces.observer:Observer",
    PluginKind.TOOL_PARSER: "vcore.interfaces.chat_format:ToolParser",
    PluginKind.REASONING_PARSER: "vcore.interfaces.chat_format:ReasoningParser",
}
"""The class that an instance of each kind must be of."""


def _require_usable(entry: CatalogEntry) -> PluginSpec:
    if not entry.ok:
        raise_first_unusable([entry])
    assert entry.spec is not None  # what is ok has one
    return entry.spec


def load_factory(entry: CatalogEntry) -> Callable[..., object]:
    """What the spec's `load` names, imported.

    Raises:
        PluginBrokenError: the entry is not usable, the import failed, or it names nothing callable.
    """
    spec = _require_usable(entry)
    factory = _resolve(entry, "load", spec.load)
    if not callable(factory):
        found = f"load={spec.load!r} names {type(factory).__name__} {factory!r}"
        raise broken_error(entry, found, expected="a class or function that takes the keywords options and context")
    _check_signature(entry, factory)
    return factory


def _resolve(entry: CatalogEntry, field: str, value: object) -> object:
    """The object that a lazy string of the spec names; anything but a string is that object already."""
    if not isinstance(value, str):
        return value
    alias = Path(entry.origin.path).stem if entry.origin.path is not None else None
    try:
        return load_lazy_string(value, home=entry.origin.module, home_alias=alias)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and its like must not end vcore
        found = f"{field}={value!r} cannot be imported: {describe_exception(error)}"
        raise broken_error(entry, found, expected="'package.module:Attribute' of a module that imports") from error


def _check_signature(entry: CatalogEntry, factory: Callable[..., object]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # written in C, or too dynamic to say: the call itself will tell
    try:
        signature.bind(options=None, context=None)
    except TypeError as error:
        load = entry.spec.load if entry.spec is not None else None
        found = f"load={load!r} takes {signature}: {error}"
        raise broken_error(entry, found, expected="a callable with the keywords options and context alone") from error


def load_options_model(entry: CatalogEntry) -> type[PluginOptions] | None:
    """The class of the plugin's options, imported; None if it takes none.

    Raises:
        PluginBrokenError: it cannot be imported, or is not a subclass of `vcore.config.PluginOptions`.
    """
    spec = _require_usable(entry)
    if spec.options is None:
        return None
    from vcore.config import PluginOptions

    model = _resolve(entry, "options", spec.options)
    if not (isinstance(model, type) and issubclass(model, PluginOptions)):
        found = f"options={spec.options!r} names {model!r}"
        raise broken_error(entry, found, expected="a subclass of vcore.config.PluginOptions")
    return model


def parse_plugin_options(entry: CatalogEntry, raw: Mapping[str, Any]) -> PluginOptions | None:
    """`raw`, checked by the plugin's schema; None if it takes no options.

    Raises:
        PluginOptionsError: they do not fit.
        PluginBrokenError: the schema cannot be loaded.
    """
    from pydantic import ValidationError

    model = load_options_model(entry)
    if model is None:
        if raw:
            raise PluginOptionsError(
                f"{entry.title} takes no options, but got {', '.join(map(repr, raw))}; remove them"
            )
        return None
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        raise PluginOptionsError(_options_message(entry, model, error)) from error


def _options_message(entry: CatalogEntry, model: type[PluginOptions], error: ValidationError) -> str:
    """What is wrong, by path; values that are, or may hold, secrets are not shown."""
    from vcore.config.problems import problems

    lines = [f"{entry.title}: its options do not fit"]
    lines += [f"  {problem}" for problem in problems(error, model)]
    lines.append(f"  `vcore plugins info {entry.kind}/{entry.name}` shows the schema")
    return "\n".join(lines)


def create_plugin(entry: CatalogEntry, *, options: PluginOptions | None, context: object) -> object:
    """Call the plugin's factory with ``options`` and ``context``.

    Raises:
        PluginBrokenError: anything that is not a `VcoreError`, chained; or what it returned is not of
            the kind's interface.
        VcoreError: raised by the plugin itself on purpose, with a note that names the plugin.
    """
    factory = load_factory(entry)
    spec = _require_usable(entry)
    try:
        instance = factory(options=options, context=context)
    except KeyboardInterrupt:
        raise
    except VcoreError as error:
        error.add_note(f"raised by {entry.title}")
        raise
    except BaseException as error:  # SystemExit and its like must not end vcore
        raise broken_error(entry, f"load={spec.load!r} raised {describe_exception(error)} when called") from error
    instance = _adapt(entry, spec, instance)
    interface = _interface(spec.kind)
    if not isinstance(instance, interface):
        found = f"load={spec.load!r} returned {type(instance).__module__}.{type(instance).__qualname__}"
        raise broken_error(entry, found, expected=f"an instance of {interface.__module__}.{interface.__qualname__}")
    warn_of_deprecations(entry, instance, interface)
    return instance


def _adapt(entry: CatalogEntry, spec: PluginSpec, instance: object) -> object:
    """The instance as one of the current contract, if it was written for the previous one."""
    served = SERVED_APIS[spec.kind]
    if served.previous_adapter is None or ApiVersion.parse(spec.api).major == served.current.major:
        return instance
    adapter = load_lazy_string(served.previous_adapter)
    assert callable(adapter)
    try:
        return adapter(instance)
    except Exception as error:
        found = f"it cannot be adapted from API {spec.api} to {served.current}: {describe_exception(error)}"
        raise broken_error(entry, found, expected=f"an instance of the {spec.kind} contract {spec.api}") from error


def _interface(kind: PluginKind) -> type:
    interface = load_lazy_string(INTERFACES[kind])
    assert isinstance(interface, type)
    return interface


def check_loadable(entry: CatalogEntry) -> None:
    """Import the plugin's code and its options model, and check what can be checked without a context.

    Raises:
        PluginBrokenError: as `load_factory` and `load_options_model`; also a class that does not
            derive from the kind's interface, or leaves a method of it abstract.
    """
    load_options_model(entry)
    factory = load_factory(entry)
    spec = _require_usable(entry)
    served = SERVED_APIS[spec.kind]
    if not isinstance(factory, type) or ApiVersion.parse(spec.api).major != served.current.major:
        return  # what a function returns is checked when it is called
    interface = _interface(spec.kind)
    if not issubclass(factory, interface):
        found = f"load={spec.load!r} names {factory.__module__}.{factory.__qualname__}"
        raise broken_error(entry, found, expected=f"a subclass of {interface.__module__}.{interface.__qualname__}")
    if missing := sorted(getattr(factory, "__abstractmethods__", ())):
        found = f"{factory.__qualname__} does not implement {', '.join(missing)}"
        raise broken_error(entry, found, expected=f"every abstract method of {interface.__qualname__}")
