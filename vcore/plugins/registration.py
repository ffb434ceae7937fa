"""From a registration module, or an object in its place, to the specs that it declares.

pluggy reads the markers and makes the calls, one hook of one plugin at a time, so that no plugin can
wrap, order or break another. What is wrong becomes a `RegistrationFault`; nothing is raised.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pluggy

from vcore.plugins import hookspecs
from vcore.plugins.hookspecs import HOOKS, PROJECT_NAME
from vcore.plugins.import_guard import describe_exception
from vcore.plugins.specs import SPEC_TYPES, PluginKind, PluginSpec
from vcore.suggestions import close_match

__all__ = ["Registration", "RegistrationFault", "read_registration"]

_PREFIX = "vcore_"
_CLOSE = 0.8


@dataclass(frozen=True, slots=True)
class RegistrationFault:
    """Something wrong with what a plugin registers."""

    kind: PluginKind | None
    """The kind whose hook it is about, or None."""
    text: str
    cause: BaseException | None = None


@dataclass(slots=True)
class Registration:
    """What a plugin declares. `specs` are of the right class for their hook, and otherwise unchecked."""

    specs: list[PluginSpec] = field(default_factory=list)
    faults: list[RegistrationFault] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Implementation:
    """A function that is marked with `hookimpl`."""

    name: str
    function: Callable[..., object]
    hook: str
    """The hook that it implements; not necessarily one that exists."""
    is_wrapper: bool
    is_optional: bool


def read_registration(plugin: object) -> Registration:
    """Call each hook that `plugin` implements.

    Args:
        plugin: a module, an instance or a namespace whose functions are marked with `hookimpl`; or a
            spec; or a list or tuple of specs.
    """
    registration = Registration()
    if isinstance(plugin, PluginSpec):
        registration.specs.append(plugin)
    elif isinstance(plugin, list | tuple):
        _take_specs(registration, plugin, "it", None)
    elif inspect.isclass(plugin):
        text = f"it is the class {plugin.__qualname__}; pass an instance, a module, or a list of specs"
        registration.faults.append(RegistrationFault(None, text))
    else:
        _read_hooks(registration, plugin)
    return registration


def _read_hooks(registration: Registration, plugin: object) -> None:
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    implementations = list(_implementations(manager, plugin))
    registration.faults.extend(_unmarked(manager, plugin))
    if not implementations and not registration.faults:
        hooks = ", ".join(HOOKS)
        text = f"it implements no hook; write one of {hooks}, each with @hookimpl (from vcore.plugins) before it"
        registration.faults.append(RegistrationFault(None, text))
    for implementation in implementations:
        fault = _refusal(implementation)
        if fault is not None:
            registration.faults.append(fault)
        elif implementation.hook in HOOKS:
            _call_hook(registration, manager, implementation)


def _implementations(manager: pluggy.PluginManager, plugin: object) -> Iterator[_Implementation]:
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            continue
        yield _Implementation(
            name=name,
            function=getattr(plugin, name),
            hook=options.get("specname") or name,
            is_wrapper=bool(options.get("wrapper") or options.get("hookwrapper")),
            is_optional=bool(options.get("optionalhook")),
        )


def _unmarked(manager: pluggy.PluginManager, plugin: object) -> Iterator[RegistrationFault]:
    """Functions that are named like a hook but carry no marker of ours."""
    for name in dir(plugin):
        if not name.startswith(_PREFIX) or manager.parse_hookimpl_opts(plugin, name) is not None:
            continue
        function: object = getattr(plugin, name)
        if not inspect.isroutine(function) or hasattr(function, f"{PROJECT_NAME}_spec"):
            continue  # a module of that name, or one of our own hookspecs, imported
        if name in HOOKS:
            text = f"{name} is not marked; write @hookimpl (from vcore.plugins) before it"
            yield RegistrationFault(HOOKS[name], text)
        elif close := close_match(name, HOOKS, cutoff=_CLOSE):
            text = f"{name} is no hook and is not marked; did you mean {close!r}, with @hookimpl before it?"
            yield RegistrationFault(None, text)


def _refusal(implementation: _Implementation) -> RegistrationFault | None:
    """Why the implementation must not be called, if so."""
    name, hook = implementation.name, implementation.hook
    if hook not in HOOKS:
        if implementation.is_optional:
            return None  # its author says that it is for another version of vcore
        close = close_match(hook, HOOKS)
        remedy = f"did you mean {close!r}?" if close else f"the hooks are {', '.join(HOOKS)}"
        return RegistrationFault(None, f"{hook} is no hook; {remedy}")
    if implementation.is_wrapper:
        text = f"{name} is a hook wrapper, which would see the plugins of others; return a list of your own specs"
        return RegistrationFault(HOOKS[hook], text)
    return None


def _call_hook(registration: Registration, manager: pluggy.PluginManager, implementation: _Implementation) -> None:
    hook, kind = implementation.hook, HOOKS[implementation.hook]
    holder = SimpleNamespace(**{implementation.name: implementation.function})
    try:
        manager.register(holder)
    except (pluggy.PluginValidationError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        text = f"{hook} must take no arguments and be a plain function: {reason}"
        registration.faults.append(RegistrationFault(kind, text, error))
        return
    try:
        results = getattr(manager.hook, hook)()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and its like must not end vcore
        text = f"{hook} raised {describe_exception(error)}"
        registration.faults.append(RegistrationFault(kind, text, error))
        return
    finally:
        manager.unregister(holder)
    returned = results[0] if results else None  # pluggy leaves out None
    if isinstance(returned, list | tuple):
        _take_specs(registration, returned, hook, kind)
    else:
        expected = f"expected a list of {SPEC_TYPES[kind].__name__}"
        registration.faults.append(RegistrationFault(kind, f"{hook} returned {_shown(returned)}; {expected}"))


def _take_specs(registration: Registration, specs: Sequence[object], source: str, kind: PluginKind | None) -> None:
    expected = SPEC_TYPES[kind] if kind is not None else PluginSpec
    for spec in specs:
        if isinstance(spec, expected):
            registration.specs.append(spec)
        else:
            text = f"{source} holds {_shown(spec)}; expected a list of {expected.__name__}"
            registration.faults.append(RegistrationFault(kind, text))


def _shown(value: object) -> str:
    """The value's type, and the value itself if it is short."""
    try:
        text = repr(value)
    except Exception as error:  # a stranger's __repr__
        text = f"<repr raised {type(error).__name__}>"
    return "None" if value is None else f"{type(value).__name__} {text[:80]}"
