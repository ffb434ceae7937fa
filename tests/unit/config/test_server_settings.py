"""The section ``server``: what contradicts itself is refused, secrets stay secret, paths are the file's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vcore.config import ServerSettings, dump, load_config, schema
from vcore.config.secrets import MASK
from vcore.errors import ConfigError
from vcore.plugins.catalog import Catalog


def settings(**values: Any) -> ServerSettings:
    return load_config({"server": values}).server


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tls_cert": "c.pem"}, "belong together"),
        ({"tls_key": "k.pem"}, "belong together"),
        ({"api_keys": [""]}, "empty"),
        ({"api_keys": [MASK]}, r"server\.api_keys.*in a secret's place"),
        ({"port": 70000}, r"server\.port: found 70000"),
        ({"host": ""}, "host"),  # which would be every address
        ({"drain_s": -1}, "drain_s"),
        ({"max_connections": 0}, "max_connections"),
        ({"log_prompts": True}, "log_requests"),
        ({"prot": 1}, r"server\.prot.*did you mean 'server\.port'"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**values)


def test_prompts_are_logged_with_requests() -> None:
    assert settings(log_prompts=True, log_requests=True).log_prompts


def test_keys_are_masked_and_filled_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "hush")
    config = load_config({"server.api_keys": ["${env:THE_KEY}"]})
    assert config.server.api_keys[0].get_secret_value() == "hush"
    for shown in (repr(config), str(config.server), json.dumps(dump(config)), config.model_dump_json()):
        assert "hush" not in shown
    assert dump(config)["server"]["api_keys"] == [MASK]
    assert load_config(config, {"server.port": 1}).server.api_keys == config.server.api_keys


@pytest.mark.parametrize(
    "values",
    [
        {"server": {"api_keys": ["hush"], "port": -1}},
        {"server": {"api_keys": "hush"}},
        {"server": {"api_keys": {"hush": "hush"}}},
        {"server": {"api_keys": ["hush"]}, "server.api_keys": ["hush2"]},
        {"server": {"api_keys": [["hush"]]}},
    ],
)
def test_no_message_shows_a_key(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(values)
    assert "hush" not in str(caught.value)


def test_a_key_opens_what_is_off() -> None:
    closed, keyed = ServerSettings(), settings(api_keys=["k"])
    assert [closed.profile_allowed, closed.reset_allowed, closed.trace_allowed] == [False] * 3
    assert keyed.profile_allowed
    assert keyed.reset_allowed
    assert keyed.trace_allowed


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").touch()
    file = tmp_path / "engine.toml"
    file.write_text('[server]\ntls_cert = "./c.pem"\ntls_key = "/k.pem"\nchat_template = "mine.jinja"\n')
    found = load_config(file).server
    assert (found.tls_cert, found.tls_key) == (tmp_path / "c.pem", Path("/k.pem"))
    assert found.chat_template == tmp_path / "mine.jinja"
    assert load_config(file, {"server.chat_template": "mine.jinja"}).server.chat_template == Path("mine.jinja")


def test_the_schema_has_every_key_and_marks_secrets(catalog: Catalog) -> None:
    section = schema(catalog)["$defs"]["ServerSettings"]
    assert set(section["properties"]) == set(ServerSettings.model_fields)
    assert section["additionalProperties"] is False
    assert section["properties"]["api_keys"]["items"]["format"] == "password"
