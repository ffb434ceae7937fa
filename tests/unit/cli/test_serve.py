"""``vcore serve``: which settings it starts a server with, and what it refuses before anything is loaded."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import pytest

from vcore.cli.main import run
from vcore.config import EngineConfig, ServerSettings
from vcore.engine.async_llm import RestartPolicy
from vcore.testing.scripted_engine import ScriptedEngine

FILE = """
model: {path: smollm2-135m}
server:
  port: 9000
  host: 0.0.0.0
  api_keys: ["${env:THE_KEY}"]
  log_requests: true
  model_names: [one, two]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("THE_KEY", "hush")
    path = tmp_path / "engine.yaml"
    path.write_text(FILE)
    return str(path)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """The settings of servers that were not started."""
    found: list[ServerSettings] = []
    monkeypatch.setattr("vcore.server.lifecycle.run_server", lambda engine, settings, _: found.append(settings))
    return found


def test_a_file_states_the_settings_and_options_win(file: str, served: list[ServerSettings]) -> None:
    assert run(["serve", "-c", file]) == 0
    assert run(["serve", "-c", file, "--set", "server.port=9001", "--set", "server.drain_s=5"]) == 0
    options = ["--port", "9002", "--no-log-requests", "--model-name", "three", "--api-key", "louder: # key"]
    assert run(["serve", "-c", file, "--set", "server.port=9001", *options]) == 0
    assert [one.port for one in served] == [9000, 9001, 9002]
    assert [one.host for one in served] == ["0.0.0.0"] * 3
    assert [one.log_requests for one in served] == [True, True, False]
    assert [one.drain_s for one in served] == [30.0, 5.0, 30.0]
    assert [one.model_names for one in served] == [("one", "two"), ("one", "two"), ("three",)]
    assert [one.filled().api_keys[0].get_secret_value() for one in served] == ["hush", "hush", "louder: # key"]


def test_options_complete_what_the_file_begins(tmp_path: Path, served: list[ServerSettings]) -> None:
    path = tmp_path / "engine.yaml"
    path.write_text("server: {log_requests: true, tls_cert: ./cert.pem}")
    assert run(["serve", "-c", str(path), "--log-prompts", "--tls-key", "key.pem"]) == 0
    [settings] = served
    assert settings.log_prompts
    assert (settings.tls_cert, settings.tls_key) == (tmp_path / "cert.pem", Path("key.pem"))


def test_without_options_everything_is_the_default(served: list[ServerSettings]) -> None:
    assert run(["serve"]) == 0
    assert served == [ServerSettings()]


def test_every_setting_has_an_option_but_for_two(served: list[ServerSettings]) -> None:
    import inspect

    from vcore.cli.serve import command

    assert set(ServerSettings.model_fields) - set(inspect.signature(command).parameters) == {
        "body_timeout_s",
        "max_engine_failures",
    }


def test_what_tells_of_a_configuration_tells_of_the_section(file: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "validate", "--portable", "-c", file]) == 0
    assert run(["config", "show", "-c", file, "--json"]) == 0
    *_, shown = capfd.readouterr().out.splitlines()
    assert json.loads(shown)["server"]["port"] == 9000
    assert "hush" not in shown
    assert run(["config", "validate", "--portable", "-c", file, "--set", "server.port=-1"]) == 2
    assert "server.port" in capfd.readouterr().err


def test_a_lock_has_no_secret_and_cannot_be_served_by_mistake(
    file: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from vcore.config import dump, load_config

    locked = tmp_path / "locked.json"
    locked.write_text(json.dumps(dump(load_config(file, {"server.api_keys": ["hush"]}))))
    assert run(["serve", "-c", str(locked)]) == 2
    assert "server.api_keys" in capfd.readouterr().err


def test_the_engines_process_is_not_told_of_the_section(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vcore.config import load_config
    from vcore.engine.remote import composition

    made: list[dict[str, Any]] = []
    monkeypatch.setattr("vcore.engine.remote.process_link.ProcessLink", lambda data, *_: made.append(data))
    config: EngineConfig = load_config(file)
    composition.Composition(config, base_dir=None, in_process=False).make_link(pytest.fail, pytest.fail)
    assert made == [{"model": {"path": "smollm2-135m"}}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "none.pem"),
        (["--tls-cert", "none.pem"], "belong together"),
        (["--chat-template", "none.jinja"], "none.jinja cannot be read"),
        (["--host", "no.such.host.invalid"], "cannot listen"),
        (["--port", "70000"], "port"),
        (["--log-prompts"], "log_requests"),
        (["--api-key", "${env:NO_SUCH}"], "'NO_SUCH' is not set"),
        (["--set", "model.pth=x"], "pth"),
    ],
)
def test_the_command_refuses_before_anything_is_loaded(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "-m", "no-such-model", *arguments]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--tool-parser", "--reasoning-parser"])
def test_so_it_does_with_parsers_that_are_not_there(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "-m", "no-such-model", option, "none-such"]) == 1
    assert "none-such" in capfd.readouterr().err


class DoomedEngine(ScriptedEngine):
    """One that is given up as soon as it serves."""

    restart: RestartPolicy

    def __init__(
        self, *, config: EngineConfig, base_dir: Path | None, in_process: bool, restart: RestartPolicy
    ) -> None:
        super().__init__()
        type(self).restart = restart

    async def start(self) -> None:
        self.status.state, self.status.reason = "dead", "it was killed by SIGKILL; the last it said:\n  out of memory"

    async def close(self) -> None: ...


def test_a_dead_engine_is_a_status_and_a_last_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcore.engine.async_llm.AsyncLLM", DoomedEngine)
    assert run(["serve", "--port", "0"]) == 1
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith("error: the engine is dead")
    assert last.endswith("killed by SIGKILL; the last it said: out of memory")
    assert DoomedEngine.restart.max_failures == 5
    run(["serve", "--port", "0", "--set", "server.max_engine_failures=null"])
    assert DoomedEngine.restart.max_failures is None


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_for_its_log_keeps_nobody_from_being_served(monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[str] = []

    def serve(engine: object, settings: object, announce: Any) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("sys.stderr", FullDisk())
            announce("http://127.0.0.1:8000")
        announced.append("and went on")

    monkeypatch.setattr("vcore.server.lifecycle.run_server", serve)
    assert run(["serve"]) == 0
    assert announced == ["and went on"]
