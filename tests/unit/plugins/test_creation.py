"""From an entry to an instance, and everything that may go wrong on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import Field, SecretStr

from vcore.config import PluginOptions
from vcore.errors import ConfigError, ModelNotFoundError, PluginBrokenError, PluginOptionsError
from vcore.interfaces.eviction import EvictionPolicy
from vcore.plugins import (
    SERVED_APIS,
    ApiVersion,
    Catalog,
    CatalogEntry,
    EntryStatus,
    PluginKind,
    ResolvedPlugin,
    ResolvedSet,
    ServedApi,
)
from vcore.plugins.creation import INTERFACES
from vcore.plugins.lazy_string import load_lazy_string

MakeEntry = Callable[..., CatalogEntry]
CATALOG = Catalog([])


class Options(PluginOptions):
    """Options to test with."""

    window: int = Field(default=4, ge=1)
    token: SecretStr | None = None


def test_every_kind_has_its_interface() -> None:
    assert set(INTERFACES) == set(PluginKind)
    assert all(isinstance(load_lazy_string(text), type) for text in INTERFACES.values())


def test_an_instance_gets_options_and_context_and_nothing_else(make_entry: MakeEntry) -> None:
    policy: Any = CATALOG.create(make_entry(options=Options), options={"window": 7}, context="ctx")
    assert policy.options == Options(window=7)
    assert policy.context == "ctx"


def test_options_may_be_parsed_before(make_entry: MakeEntry) -> None:
    policy: Any = CATALOG.create(make_entry(options=Options), options=Options(window=2), context=None)
    assert policy.options == Options(window=2)


def test_a_plugin_without_options_gets_none(make_entry: MakeEntry) -> None:
    policy: Any = CATALOG.create(make_entry(), options={}, context=None)
    assert policy.options is None


class TestOptions:
    def test_a_misspelt_option(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginOptionsError) as caught:
            CATALOG.parse_options(make_entry(options=Options), {"windw": 1})
        message = str(caught.value)
        assert "eviction_policy 'lru' of vcore-engine 1.0: its options do not fit" in message
        assert "windw: unknown key; did you mean 'window'?" in message
        assert isinstance(caught.value, ConfigError)

    def test_values_that_do_not_fit_are_told_all_at_once(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginOptionsError) as caught:
            CATALOG.parse_options(make_entry(options=Options), {"window": 0, "token": 5})
        assert "window: found 0, expected a number of at least 1" in str(caught.value)
        assert "token: " in str(caught.value)

    def test_a_secret_is_not_shown(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginOptionsError, match=r"token: found \*{10}, expected a text") as caught:
            CATALOG.parse_options(make_entry(options=Options), {"token": ["hunter2"]})
        assert "hunter2" not in str(caught.value)

    def test_options_for_a_plugin_that_takes_none(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginOptionsError, match="takes no options, but got 'window'; remove them"):
            CATALOG.parse_options(make_entry(), {"window": 1})

    @pytest.mark.parametrize("options", ["json:JSONDecoder", "json:loads", dict])
    def test_a_schema_of_another_class(self, make_entry: MakeEntry, options: object) -> None:
        with pytest.raises(PluginBrokenError, match=r"expected a subclass of vcore\.config\.PluginOptions"):
            CATALOG.parse_options(make_entry(options=options), {})

    def test_a_schema_that_cannot_be_imported(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginBrokenError, match="options='acme_absent:Options' cannot be imported") as caught:
            CATALOG.options_model(make_entry(options="acme_absent:Options"))
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)


class TestLoad:
    @pytest.mark.parametrize("load", ["acme_absent:LRU", "json:Nope"])
    def test_what_cannot_be_imported(self, make_entry: MakeEntry, load: str) -> None:
        with pytest.raises(PluginBrokenError) as caught:
            CATALOG.load(make_entry(load=load, distribution="acme"))
        message = str(caught.value)
        assert f"eviction_policy 'lru' of acme 1.0 (entry point points): load={load!r} cannot be imported" in message
        assert "expected 'package.module:Attribute'" in message
        assert "upgrade or uninstall acme" in message
        assert caught.value.__cause__ is not None

    def test_what_is_not_callable(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginBrokenError, match=r"names str .*; expected a class or function"):
            CATALOG.load(make_entry(load="json:__name__"))

    @pytest.mark.parametrize("factory", [lambda context: None, lambda *, options, context, more: None])
    def test_another_signature(self, make_entry: MakeEntry, factory: Callable[..., object]) -> None:
        with pytest.raises(PluginBrokenError, match="expected a callable with the keywords options and context alone"):
            CATALOG.load(make_entry(load=factory))

    def test_what_cannot_be_used(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginBrokenError, match="is incompatible: too old"):
            CATALOG.load(make_entry(status=EntryStatus.INCOMPATIBLE, reason="too old"))


class TestCreate:
    @pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(1)])
    def test_whatever_the_factory_raises_is_wrapped(self, make_entry: MakeEntry, error: BaseException) -> None:
        def factory(*, options: object, context: object) -> object:
            raise error

        with pytest.raises(PluginBrokenError, match=f"raised {type(error).__name__}.* when called") as caught:
            CATALOG.create(make_entry(load=factory), context=None)
        assert caught.value.__cause__ is error

    def test_an_error_of_ours_passes_with_a_note(self, make_entry: MakeEntry) -> None:
        def factory(*, options: object, context: object) -> object:
            raise ModelNotFoundError("no such model")

        with pytest.raises(ModelNotFoundError, match="no such model") as caught:
            CATALOG.create(make_entry(load=factory), context=None)
        assert caught.value.__notes__ == ["raised by eviction_policy 'lru' of vcore-engine 1.0"]

    def test_an_interrupt_passes(self, make_entry: MakeEntry) -> None:
        def factory(*, options: object, context: object) -> object:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            CATALOG.create(make_entry(load=factory), context=None)

    def test_an_instance_of_something_else(self, make_entry: MakeEntry) -> None:
        def factory(*, options: object, context: object) -> object:
            return {}

        with pytest.raises(PluginBrokenError) as caught:
            CATALOG.create(make_entry(load=factory), context=None)
        assert "returned builtins.dict; expected an instance of vcore.interfaces.eviction.EvictionPolicy" in str(
            caught.value
        )

    def test_an_abstract_class(self, make_entry: MakeEntry) -> None:
        class Half(EvictionPolicy):
            def __init__(self, *, options: object, context: object) -> None: ...

        with pytest.raises(PluginBrokenError, match="abstract"):
            CATALOG.create(make_entry(load=Half), context=None)
        with pytest.raises(PluginBrokenError, match="does not implement on_evict, on_free, on_hit"):
            CATALOG.check(make_entry(load=Half))

    def test_the_previous_contract_is_adapted(
        self, make_entry: MakeEntry, list_eviction: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served = ServedApi(ApiVersion(2, 0), previous_adapter=f"{__name__}:adapt")
        monkeypatch.setitem(SERVED_APIS, PluginKind.EVICTION_POLICY, served)
        monkeypatch.setattr("vcore.plugins.creation.load_lazy_string", _with_adapter(lambda old: old["policy"]))
        policy = list_eviction(options=None, context=None)

        def old_factory(*, options: object, context: object) -> object:
            return {"policy": policy}

        assert CATALOG.create(make_entry(load=old_factory, api="1.0"), context=None) is policy
        CATALOG.check(make_entry(load=old_factory, api="1.0"))

    def test_an_adapter_that_fails_is_the_plugins_fault(
        self, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served = ServedApi(ApiVersion(2, 0), previous_adapter=f"{__name__}:adapt")
        monkeypatch.setitem(SERVED_APIS, PluginKind.EVICTION_POLICY, served)
        monkeypatch.setattr("vcore.plugins.creation.load_lazy_string", _with_adapter(lambda old: old.nope))
        with pytest.raises(PluginBrokenError, match=r"cannot be adapted from API 1\.0 to 2\.0"):
            CATALOG.create(make_entry(api="1.0"), context=None)


def _with_adapter(adapter: Callable[[Any], object]) -> Callable[..., object]:
    def load(text: str, **homes: object) -> object:
        return adapter if text.endswith(":adapt") else load_lazy_string(text)

    return load


class TestCheck:
    def test_a_good_one(self, make_entry: MakeEntry) -> None:
        CATALOG.check(make_entry(options=Options))

    def test_a_class_of_another_interface(self, make_entry: MakeEntry) -> None:
        class Other:
            def __init__(self, *, options: object, context: object) -> None: ...

        with pytest.raises(
            PluginBrokenError, match=r"expected a subclass of vcore\.interfaces\.eviction\.EvictionPolicy"
        ):
            CATALOG.check(make_entry(load=Other))


def test_the_resolved_set_holds_a_plugin_once_with_its_options_masked(make_entry: MakeEntry) -> None:
    entry = make_entry(options=Options)
    parsed = [CATALOG.parse_options(entry, {"window": window, "token": "hunter2"}) for window in (1, 2)]
    [plugin] = ResolvedSet.of(ResolvedPlugin.selected(entry, options) for options in parsed).plugins
    assert (plugin.kind, plugin.name, plugin.distribution, plugin.version) == (
        "eviction_policy", "lru", "vcore-engine", "1.0",
    )  # fmt: skip
    assert plugin.options == {"window": 2, "token": "**********"}
