"""Secrets are filled in from the environment where they belong, refused elsewhere, and shown nowhere."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from vcore.config import EngineConfig, PluginOptions, dump, load_config, schema
from vcore.config.problems import problems
from vcore.config.secrets import MASK
from vcore.errors import ConfigError
from vcore.plugins.catalog import Catalog

SECRET = "hunter2-do-not-show"
OPTIONS = {
    "url": "http://here",
    "token": SECRET,
    "headers": {"auth": SECRET, "other": "${env:VCORE_TEST_TOKEN}"},
    "keys": [SECRET],
    "login": {"user": "me", "password": SECRET},
    "level": 3,
}


def with_options(options: dict[str, Any]) -> EngineConfig:
    return load_config({"observability.observers": [{"name": "telemetry", "options": options}]})


def test_a_reference_is_filled_in_where_a_secret_stands(
    telemetry_options: type[PluginOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCORE_TEST_TOKEN", SECRET)
    options: Any = telemetry_options.model_validate(
        {
            "token": "Bearer ${env:VCORE_TEST_TOKEN}",
            "headers": {"auth": "${env:VCORE_TEST_TOKEN}"},
            "keys": ["${env:VCORE_TEST_TOKEN}"],
            "login": {"password": "${env:VCORE_TEST_TOKEN}"},
        }
    )
    assert options.token.get_secret_value() == f"Bearer {SECRET}"
    assert options.headers["auth"].get_secret_value() == SECRET
    assert options.keys[0].get_secret_value() == SECRET
    assert options.login.password.get_secret_value() == SECRET
    assert SECRET not in repr(options) + str(options) + options.model_dump_json()


def test_an_unset_variable_is_named(telemetry_options: type[PluginOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VCORE_TEST_TOKEN", raising=False)
    with pytest.raises(ValidationError, match="'VCORE_TEST_TOKEN' is not set"):
        telemetry_options.model_validate({"token": "${env:VCORE_TEST_TOKEN}"})


@pytest.mark.parametrize("options", [{"url": "${env:HOME}"}, {"login": {"user": "${env:HOME}"}}])
def test_a_reference_elsewhere_in_options_is_refused(
    telemetry_options: type[PluginOptions], options: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match="only where a secret is expected"):
        telemetry_options.model_validate(options)


@pytest.mark.parametrize(
    "tree",
    [
        {"model.path": "${env:HOME}"},
        {"runtime": {"device": "${env:HOME}"}},
        {"plugins.load": ["${env:HOME}/mine.py"]},
        {"executor": "${env:HOME}"},
        {"attention.backend.name": "${env:HOME}"},
        {"observability.observers": ["${env:HOME}"]},
    ],
)
def test_a_reference_in_the_tree_is_refused_by_path(tree: dict[str, Any]) -> None:
    key = next(iter(tree))
    with pytest.raises(ConfigError, match="only where a secret is expected") as caught:
        load_config(tree)
    assert str(caught.value).startswith(key.removesuffix(".name"))


def test_raw_options_stay_unexpanded_in_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCORE_TEST_TOKEN", SECRET)
    config = with_options({"token": "${env:VCORE_TEST_TOKEN}"})
    assert config.observability.observers[0].options == {"token": "${env:VCORE_TEST_TOKEN}"}
    assert SECRET not in config.model_dump_json()


def test_a_repr_shows_no_value_of_options() -> None:
    config = with_options(OPTIONS)
    assert SECRET not in repr(config) + str(config)
    assert "${env:VCORE_TEST_TOKEN}" in repr(config)


def test_dump_masks_secrets_and_only_secrets(catalog: Catalog) -> None:
    shown = dump(with_options(OPTIONS), catalog)["observability"]["observers"]
    assert shown == [
        {
            "name": "telemetry",
            "options": {
                "url": "http://here",
                "token": MASK,
                "headers": {"auth": MASK, "other": "${env:VCORE_TEST_TOKEN}"},
                "keys": [MASK],
                "login": {"user": "me", "password": MASK},
                "level": 3,
            },
        }
    ]


@pytest.mark.parametrize(
    "options",
    [{"tokn": SECRET}, {"token": 31337}, {"token": [SECRET]}, {"login": SECRET}, {"login": [{"password": SECRET}]}],
)
def test_dump_masks_what_does_not_fit_the_schema(catalog: Catalog, options: dict[str, Any]) -> None:
    text = json.dumps(dump(with_options(options), catalog))
    assert SECRET not in text
    assert "31337" not in text


def test_dump_masks_all_options_of_an_unknown_plugin(catalog: Catalog) -> None:
    config = load_config(
        {"executor": {"name": "unknown", "options": {"a": SECRET, "b": {"c": [SECRET, 5]}, "d": True}}}
    )
    shown = dump(config, catalog)["executor"]["options"]
    assert shown == {"a": MASK, "b": {"c": [MASK, MASK]}, "d": True}
    assert dump(config)["executor"]["options"] == shown


@pytest.mark.parametrize(
    "options",
    [
        {"token": 31337},
        {"token": {"a": SECRET}},
        {"tokn": SECRET},
        {"level": [SECRET]},
        {"login": {"password": 31337}},
        {"keys": SECRET},
        {"headers": {"auth": 31337}},
    ],
)
def test_errors_show_no_secret(telemetry_options: type[PluginOptions], options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        telemetry_options.model_validate(options)
    told = " ".join(str(problem) for problem in problems(caught.value, telemetry_options, "observers.options"))
    told += "".join(traceback.format_exception(caught.value))
    assert "observers.options." in told
    assert SECRET not in told
    assert "31337" not in told


@pytest.mark.parametrize(
    "options",
    [
        {"token": 31337},
        {"tokn": SECRET},
        {"token": [SECRET]},
        {"level": {"a": SECRET}},
        {"login": {"password": 31337}},
        {"login": {"password": SECRET, "user": 3}},
    ],
)
def test_the_catalog_shows_no_secret_when_options_do_not_fit(catalog: Catalog, options: dict[str, Any]) -> None:
    entry = catalog.find("observer", "telemetry")
    with pytest.raises(ConfigError) as caught:
        catalog.parse_options(entry, options)
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert "31337" not in told


def test_a_contradiction_in_options_shows_no_value() -> None:
    with pytest.raises(ConfigError, match=r"cache\.eviction\.options\.key is given twice; leave one out") as caught:
        load_config(
            {"cache.eviction": {"name": "lru", "options": {"key": SECRET}}, "cache.eviction.options.key": "other"}
        )
    assert SECRET not in str(caught.value)


def test_the_schema_shows_no_default_of_a_secret(make_catalog: Callable[[Any], Catalog]) -> None:
    text = json.dumps(schema(make_catalog(())))
    assert "telemetry" in text
    assert "built-in-token" not in text
