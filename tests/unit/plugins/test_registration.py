"""From hooks to specs: what counts as an implementation, and what each slip is told."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence

import pluggy
import pytest

from vcore.plugins import EvictionPolicySpec, ObserverSpec, PluginKind, hookimpl
from vcore.plugins.registration import read_registration

SPEC = EvictionPolicySpec(name="mru", load="acme:MRU", api="1.0")


@hookimpl
def marked() -> Sequence[EvictionPolicySpec]:
    return [SPEC]


def namespace(**functions: object) -> types.SimpleNamespace:
    return types.SimpleNamespace(**functions)


def hook(action: Callable[[], object]) -> types.SimpleNamespace:
    """A plugin whose hook for eviction policies is `action`."""

    def vcore_eviction_policies() -> object:
        return action()

    return namespace(vcore_eviction_policies=hookimpl(vcore_eviction_policies))


def only_fault(plugin: object) -> tuple[PluginKind | None, str]:
    registration = read_registration(plugin)
    assert registration.specs == []
    [fault] = registration.faults
    return fault.kind, fault.text


class Plugin:
    """An instance with methods."""

    @hookimpl
    def vcore_eviction_policies(self) -> Sequence[EvictionPolicySpec]:
        return (SPEC,)


def module() -> types.ModuleType:
    made = types.ModuleType("acme")
    made.vcore_eviction_policies = marked  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    "plugin",
    [SPEC, [SPEC], (SPEC,), Plugin(), module(), namespace(vcore_eviction_policies=marked)],
    ids=["spec", "list", "tuple", "instance", "module", "namespace"],
)
def test_what_counts_as_a_plugin(plugin: object) -> None:
    registration = read_registration(plugin)
    assert registration.specs == [SPEC]
    assert registration.faults == []


def test_a_function_of_any_name_may_implement_a_hook() -> None:
    mine = hookimpl(specname="vcore_eviction_policies")(lambda: [SPEC])
    assert read_registration(namespace(mine=mine)).specs == [SPEC]


def test_an_empty_list_is_nothing_and_no_fault() -> None:
    registration = read_registration(hook(list))
    assert (registration.specs, registration.faults) == ([], [])


def test_an_empty_module() -> None:
    kind, text = only_fault(types.ModuleType("acme"))
    assert kind is None
    assert "implements no hook" in text
    assert "vcore_eviction_policies" in text
    assert "@hookimpl" in text


def test_a_class_instead_of_an_instance() -> None:
    assert "it is the class Plugin; pass an instance" in only_fault(Plugin)[1]


def test_a_misspelt_hook() -> None:
    kind, text = only_fault(namespace(vcore_eviction_policy=marked))
    assert kind is None
    assert "vcore_eviction_policy is no hook; did you mean 'vcore_eviction_policies'?" in text


def test_a_marked_function_that_is_like_no_hook() -> None:
    assert "zzz is no hook; the hooks are vcore_models" in only_fault(namespace(zzz=marked))[1]


def test_an_optional_hook_of_another_version_is_passed_over() -> None:
    @hookimpl(optionalhook=True)
    def future() -> object:
        return [3]

    registration = read_registration(namespace(vcore_wizards=future, vcore_eviction_policies=marked))
    assert (registration.specs, registration.faults) == ([SPEC], [])


def test_a_forgotten_marker() -> None:
    kind, text = only_fault(namespace(vcore_eviction_policies=lambda: [SPEC]))
    assert kind is PluginKind.EVICTION_POLICY
    assert "vcore_eviction_policies is not marked; write @hookimpl" in text


def test_a_marker_of_another_project_is_none() -> None:
    other = pluggy.HookimplMarker("pytest")(lambda: [SPEC])
    assert "is not marked" in only_fault(namespace(vcore_eviction_policies=other))[1]


def test_a_forgotten_marker_on_a_misspelt_hook() -> None:
    assert "did you mean 'vcore_models', with @hookimpl" in only_fault(namespace(vcore_model=lambda: [SPEC]))[1]


def test_helpers_and_modules_with_our_prefix_are_let_be() -> None:
    plugin = namespace(vcore_eviction_policies=marked, vcore_helper=lambda: 1, vcore_modelz=math)
    assert read_registration(plugin).faults == []


@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}])
def test_wrappers_are_refused_uncalled(options: dict[str, bool]) -> None:
    def vcore_eviction_policies() -> object:
        yield pytest.fail("called")

    wrapper = hookimpl(**options)(vcore_eviction_policies)  # type: ignore[call-overload]
    kind, text = only_fault(namespace(vcore_eviction_policies=wrapper))
    assert kind is PluginKind.EVICTION_POLICY
    assert "is a hook wrapper" in text


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(2)])
def test_a_hook_that_raises(error: BaseException) -> None:
    def fail() -> object:
        raise error

    registration = read_registration(hook(fail))
    [fault] = registration.faults
    assert fault.kind is PluginKind.EVICTION_POLICY
    assert fault.text.startswith(f"vcore_eviction_policies raised {type(error).__name__}")
    assert fault.cause is error


def test_one_hook_that_raises_leaves_the_others() -> None:
    def fail() -> object:
        raise ValueError("boom")

    registration = read_registration(namespace(vcore_models=hookimpl(fail), vcore_eviction_policies=marked))
    assert registration.specs == [SPEC]
    assert [fault.kind for fault in registration.faults] == [PluginKind.MODEL]


def test_an_interrupt_passes() -> None:
    def interrupt() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_registration(hook(interrupt))


def test_a_hook_with_arguments() -> None:
    def vcore_eviction_policies(config: object) -> object:
        return [SPEC]

    kind, text = only_fault(namespace(vcore_eviction_policies=hookimpl(vcore_eviction_policies)))
    assert kind is PluginKind.EVICTION_POLICY
    assert "must take no arguments" in text


class Unprintable:
    """What a stranger may return."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (None, "returned None; expected a list of EvictionPolicySpec"),
        (SPEC, "returned EvictionPolicySpec"),
        ({"mru": SPEC}, "returned dict"),
        (["mru"], "holds str 'mru'; expected a list of EvictionPolicySpec"),
        ([ObserverSpec(name="o", load="a:B", api="1.0")], "holds ObserverSpec"),
        ([Unprintable()], "holds Unprintable <repr raised RuntimeError>"),
    ],
    ids=["none", "spec", "dict", "strings", "wrong kind", "unprintable"],
)
def test_what_a_hook_must_not_return(returned: object, found: str) -> None:
    kind, text = only_fault(hook(lambda: returned))
    assert kind is PluginKind.EVICTION_POLICY
    assert found in text


def test_a_list_that_holds_something_else() -> None:
    assert "it holds int 3; expected a list of PluginSpec" in only_fault([3])[1]
