"""`ServerSettings`: what contradicts itself is refused, and secrets stay secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vcore.cli.main import run
from vcore.errors import ConfigError
from vcore.server import ServerSettings
from vcore.server.settings import settings_from


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tls_cert": Path("c.pem")}, "belong together"),
        ({"tls_key": Path("k.pem")}, "belong together"),
        ({"api_keys": ("",)}, "empty"),
        ({"port": 70000}, "port"),
        ({"host": ""}, "host"),  # which would be every address
        ({"drain_s": -1}, "drain_s"),
        ({"prot": 1}, "prot"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_from(values)


def test_keys_are_masked_and_filled_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "hush")
    settings = settings_from({"api_keys": ("${env:THE_KEY}",)})
    assert settings.api_keys[0].get_secret_value() == "hush"
    assert "hush" not in repr(settings)
    with pytest.raises(ConfigError) as caught:
        settings_from({"api_keys": ("${env:THE_KEY}",), "port": -1})
    assert "hush" not in str(caught.value)


def test_a_key_opens_what_is_off() -> None:
    closed, keyed = ServerSettings(), settings_from({"api_keys": ("k",)})
    assert [closed.profile_allowed, closed.reset_allowed, closed.trace_allowed] == [False] * 3
    assert keyed.profile_allowed
    assert keyed.reset_allowed
    assert keyed.trace_allowed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "none.pem"),
        (["--tls-cert", "none.pem"], "belong together"),
        (["--host", "no.such.host.invalid"], "cannot listen"),
        (["--port", "70000"], "port"),
        (["--set", "model.pth=x"], "pth"),
    ],
)
def test_the_command_refuses_before_anything_is_loaded(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "-m", "no-such-model", *arguments]) == 2
    assert message in capfd.readouterr().err
