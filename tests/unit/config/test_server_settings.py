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
        ({"port": 70000}, r"server\.port: found 70000"),
        ({"host": ""}, "host"),  # which would be every address
        ({"api_keys": ["k", "key-of-a-file\n"]}, r"never be sent.*line break"),
        ({"api_keys": [" "]}, "never be sent"),
        ({"api_keys": ["kéy"]}, "never be sent"),
        ({"drain_s": -1}, "drain_s"),
        ({"drain_s": float("inf")}, r"server\.drain_s: found inf"),  # of which there is no whole number of seconds
        ({"head_timeout_s": float("nan")}, "head_timeout_s"),
        ({"request_timeout_s": 1e300}, "request_timeout_s"),
        ({"keep_alive_s": 10**30}, "keep_alive_s"),
        ({"port": True}, r"server\.port: found True"),
        ({"max_connections": "8"}, "max_connections"),
        ({"max_connections": 0}, "max_connections"),
        ({"log_prompts": True}, "log_requests"),
        ({"otlp_traces_endpoint": "https://user:secret@collector:4318/v1/traces"}, "OTEL_EXPORTER_OTLP_HEADERS"),
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
    config = load_config({"server.api_keys": ["${env:THE_KEY}", "hush too"]})
    filled = config.server.filled()
    assert [key.get_secret_value() for key in filled.api_keys] == ["hush", "hush too"]
    for shown in (repr(config), str(filled), json.dumps(dump(config)), filled.model_dump_json()):
        assert "hush" not in shown
    assert dump(config)["server"]["api_keys"] == ["${env:THE_KEY}", MASK]
    assert load_config(config, {"server.port": 1}).server.api_keys == config.server.api_keys


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("${env:NO_SUCH}", "'NO_SUCH' is not set"),
        ("${env:EMPTY}", "empty"),
        ("${env:LINE}", "can never be sent"),
        (MASK, "in a secret's place"),
    ],
)
def test_keys_that_are_none_are_refused_where_they_are_needed(
    key: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LINE", "hush\n")
    monkeypatch.delenv("NO_SUCH", raising=False)
    needless = settings(api_keys=[key])  # of an offline engine, say
    with pytest.raises(ConfigError, match=rf"server\.api_keys: .*{message}"):
        needless.filled()


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
