"""What of a server's configuration is found wrong before a model is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vcore.config import ServerSettings, load_config
from vcore.errors import ConfigError, PluginError
from vcore.server.preflight import check_parsers, check_settings

BROKEN_PARSER = """
from vcore.plugins import ToolParserSpec, hookimpl

@hookimpl
def vcore_tool_parsers():
    return [ToolParserSpec(name="mine", load="no_such_module_at_all:Parser", api="1.0")]
"""


def test_what_is_right_passes(tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{{ raise_exception('other messages, please') }}{% for one in messages %}{% endfor %}")
    check_settings(ServerSettings(chat_template=template))
    check_settings(ServerSettings())
    check_parsers(load_config({"chat": {"tool_parser": "hermes", "reasoning_parser": "none"}}), None)
    check_parsers(load_config({"plugins": {"load": ["./not-there.py"]}}), tmp_path)  # nothing of it is asked for


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b" \n", "is empty"),
        (b"{{ messages }}\n{% for message in messages %}", r"line 2, is no Jinja"),
    ],
)
def test_a_chat_template_that_is_none(tmp_path: Path, content: bytes | None, says: str) -> None:
    template = tmp_path / "mine.jinja"
    if content is not None:
        template.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"chat_template: .*mine\.jinja.*{says}"):
        check_settings(ServerSettings(chat_template=template))


def test_files_for_tls_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for file in (empty, tmp_path / "none.pem"):
        with pytest.raises(ConfigError, match=file.name):
            check_settings(ServerSettings(tls_cert=file, tls_key=file))


def test_a_key_for_tls_that_asks_for_a_password(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -passout pass:hush -days 2 -subj /CN=localhost"
    )
    subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    with pytest.raises(ConfigError, match="protected by a password"):
        check_settings(ServerSettings(tls_cert=cert, tls_key=key))


def test_a_key_that_is_not_set() -> None:
    with pytest.raises(ConfigError, match="NO_SUCH"):
        check_settings(ServerSettings.model_validate({"api_keys": ["${env:NO_SUCH}"]}))


def test_spans_without_what_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = ServerSettings(otlp_traces_endpoint="http://127.0.0.1:9/v1/traces")
    check_settings(settings)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ConfigError, match=r"vcore-engine\[otel\]"):
        check_settings(settings)


@pytest.mark.parametrize("kind", ["tool_parser", "reasoning_parser"])
def test_a_parser_that_is_not_there(kind: str) -> None:
    with pytest.raises(PluginError, match="none-such"):
        check_parsers(load_config({"chat": {kind: "none-such"}}), None)


def test_a_parser_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BROKEN_PARSER)
    config = load_config({"chat": {"tool_parser": "mine"}, "plugins": {"load": ["./mine.py"]}})
    with pytest.raises(PluginError, match="no_such_module_at_all"):
        check_parsers(config, tmp_path)


def test_options_that_do_not_fit_a_parser() -> None:
    with pytest.raises(PluginError, match="hermes"):
        check_parsers(load_config({"chat": {"tool_parser": {"name": "hermes", "options": {"x": 1}}}}), None)
