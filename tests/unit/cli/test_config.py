"""``vcore config``: what each command prints, what it refuses, and that it fetches nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from vcore.cli.main import run
from vcore.config import EngineConfig, load_config

Captured = pytest.CaptureFixture[str]

HF_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-5,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}

SECRET = "hunter2-do-not-show"

PLUGIN = """
from pydantic import SecretStr
from vcore.config import PluginOptions
from vcore.plugins import ObserverSpec, hookimpl

class Options(PluginOptions):
    token: SecretStr
    url: str = "here"

@hookimpl
def vcore_observers():
    return [ObserverSpec(name="telemetry", load=":make", api="1.0", options=":Options")]

def make(*, options, context):
    raise AssertionError("nothing may be created")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def file(here: Path) -> Path:
    """A configuration over a model with made-up weights."""
    (here / "model").mkdir()
    (here / "model" / "config.json").write_text(json.dumps(HF_CONFIG), encoding="utf-8")
    path = here / "engine.yaml"
    path.write_text(
        "model: {path: ./model, load_format: dummy, skip_tokenizer: true}\nruntime: {device: cpu}\n", encoding="utf-8"
    )
    return path


def as_json(arguments: list[str], captured: Captured) -> dict[str, Any]:
    assert run(arguments) == 0
    parsed: dict[str, Any] = json.loads(captured.readouterr().out)
    return parsed


def test_show_gives_back_what_it_was_given(file: Path, capsys: Captured) -> None:
    arguments = ["config", "show", "--config", str(file), "--set", "cache.block_size=8", "-m", "smollm2-135m"]
    assert run(arguments) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    expected = load_config(file, {"block_size": 8, "model": "smollm2-135m"})
    assert load_config(shown) == expected
    assert as_json([*arguments, "--json"], capsys) == shown
    assert shown["model"]["dtype"] == "auto"


def test_show_without_anything_is_the_defaults(capsys: Captured) -> None:
    assert load_config(as_json(["config", "show", "--json"], capsys)) == EngineConfig()


@pytest.mark.parametrize("written", [SECRET, "${env:VCORE_TEST_TOKEN}"])
@pytest.mark.parametrize("command", ["show", "validate", "lock"])
def test_secrets_are_shown_by_no_command(
    here: Path, file: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, written: str, command: str
) -> None:
    monkeypatch.setenv("VCORE_TEST_TOKEN", SECRET)
    (here / "mine.py").write_text(PLUGIN, encoding="utf-8")
    observers = f"observability.observers=[{{name: telemetry, options: {{token: '{written}', url: there}}}}]"
    assert run(["config", command, "-c", str(file), "-p", "./mine.py", "--set", observers]) == 0
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    if command == "show":
        options = yaml.safe_load(printed.out)["observability"]["observers"][0]["options"]
        assert options == {"token": written if written.startswith("$") else "**********", "url": "there"}


def test_a_choice_that_may_be_none_is_shown_and_described_as_such(capsys: Captured) -> None:
    assert as_json(["config", "show", "--json"], capsys)["model"]["fallback"] is None
    shown = as_json(["config", "show", "--set", "model.fallback=transformers", "--json"], capsys)
    assert shown["model"]["fallback"] == "transformers"
    assert as_json(["config", "show", "--set", "model.fallback=none", "--json"], capsys)["model"]["fallback"] is None
    document = as_json(["config", "schema"], capsys)
    fallback = document["$defs"]["ModelConfig"]["properties"]["fallback"]
    assert fallback["anyOf"] == [{"$ref": "#/$defs/choice.model"}, {"type": "null"}]
    assert fallback["default"] is None


def test_options_that_do_not_fit_are_told_without_secrets(here: Path, file: Path, capsys: Captured) -> None:
    (here / "mine.py").write_text(PLUGIN, encoding="utf-8")
    observers = f"observability.observers=[{{name: telemetry, options: {{tokn: {SECRET}, url: 3}}}}]"
    assert run(["config", "validate", "--portable", "-p", "./mine.py", "--set", observers]) == 2
    told = capsys.readouterr().err
    assert "tokn: unknown key; did you mean 'token'?" in told
    assert "url: found 3, expected a text" in told
    assert "token: is required" in told
    assert SECRET not in told


def test_explain_tells_every_auto_and_why(file: Path, capsys: Captured) -> None:
    told = as_json(["config", "explain", "-c", str(file), "--json"], capsys)
    decisions = {decision["key"]: decision for decision in told["decisions"]}
    assert decisions["model.dtype"]["value"] == "float32"
    assert decisions["model.plugin"]["why"] == "it serves LlamaForCausalLM"
    assert decisions["model.max_model_len"]["value"] == 512
    assert "model.load_format" not in decisions
    rejected = decisions["scheduler.policy"]["rejected"]
    assert {"candidate", "reasons"} == set(rejected[0])
    assert told["kv_bytes_per_token"] == 3 * 2 * 2 * 16 * 4
    assert told["kv_cache"] == [{"num_layers": 3, "bytes_per_token": 2 * 2 * 16 * 4, "window": None}]
    attention, mlp, norms = 64 * 64 * 2 + 2 * 64 * 32, 3 * 64 * 64, 2 * 64
    assert told["num_parameters"] == 3 * (attention + mlp + norms) + 64 + 2 * 100 * 64
    assert told["weight_bytes"] == 4 * told["num_parameters"]


def test_explain_prints_a_table_for_people(file: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["config", "explain", "-c", str(file)]) == 0
    printed = capsys.readouterr().out
    for fragment in ("model.dtype", "float32", "it serves LlamaForCausalLM", "its rank is lower"):
        assert fragment in printed
    assert "KV cache: 768 bytes a token (3 layers, 256 bytes a layer), 0.4 MiB for one request of 512" in printed
    assert "Weights: 86,976 parameters, 0.3 MiB in float32." in printed


def test_validate_tells_what_was_checked(file: Path, capsys: Captured) -> None:
    told = as_json(["config", "validate", "-c", str(file), "--json"], capsys)
    assert (told["valid"], told["portable"]) == (True, False)
    assert run(["config", "validate", "-c", str(file)]) == 0
    assert f"{file} is valid." in capsys.readouterr().out


@pytest.mark.parametrize("portable", [[], ["--portable"]])
def test_validate_refuses_with_status_2_and_says_why(file: Path, capsys: Captured, portable: list[str]) -> None:
    arguments = ["config", "validate", "-c", str(file), "--set", "cache.eviction=lur", "--json", *portable]
    assert run(arguments) != 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert told["valid"] is False
    assert "did you mean 'lru'" in told["error"]
    assert "did you mean 'lru'" in printed.err


def test_validate_portable_needs_neither_the_device_nor_the_model(here: Path, capsys: Captured) -> None:
    (here / "far.yaml").write_text("model: {path: smollm2-135m}\nruntime: {device: 'cuda:7'}\n", encoding="utf-8")
    told = as_json(["config", "validate", "-c", "far.yaml", "--portable", "--json"], capsys)
    assert told["valid"]
    assert "whether the device is there" in told["unchecked"]
    assert run(["config", "validate", "-c", "far.yaml"]) == 2
    assert "cuda" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["explain", "validate", "lock"])
def test_a_model_that_is_not_here_is_not_fetched(capsys: Captured, command: str) -> None:
    assert run(["config", command, "-m", "smollm2-135m", "--set", "runtime.device=cpu"]) == 1
    assert "`vcore pull smollm2-135m`" in capsys.readouterr().err


def test_a_pull_is_no_remedy_for_a_path_or_name_that_is_wrong(capsys: Captured) -> None:
    for wrong in ("./absent", "no such model"):
        assert run(["config", "validate", "-m", wrong]) == 1
        assert "fetches the model" not in capsys.readouterr().err


def test_lock_has_no_auto_and_every_plugin(here: Path, file: Path, capsys: Captured) -> None:
    locked = as_json(["config", "lock", "-c", str(file)], capsys)
    assert load_config(locked["config"]).model.dtype == "float32"
    assert locked["config"]["model"]["offline"] is False
    plugins = {plugin["kind"]: plugin for plugin in locked["plugins"]}
    assert plugins["model"]["name"] == "llama"
    assert plugins["weight_loader"]["name"] == "dummy"
    assert {plugin["distribution"] for plugin in plugins.values()} == {"vcore-engine"}
    assert run(["config", "lock", "-c", str(file), "-o", "engine.lock"]) == 0
    assert json.loads((here / "engine.lock").read_text(encoding="utf-8")) == locked


def test_a_mistake_in_a_file_is_told_with_the_file(file: Path, capsys: Captured) -> None:
    file.write_text("cache: {blocksize: 3}\n", encoding="utf-8")
    assert run(["config", "show", "-c", str(file)]) == 2
    error = f"error: {file}: cache.blocksize: unknown key; did you mean 'cache.block_size'?"
    assert error in capsys.readouterr().err


def test_the_schema_holds_the_installed_plugins(capsys: Captured) -> None:
    document = as_json(["config", "schema"], capsys)
    names = document["$defs"]["choice.eviction_policy"]["anyOf"][0]["enum"]
    assert {"auto", "lru", "fifo"} <= set(names)


@pytest.mark.parametrize("command", ["schema", "show"])
def test_schema_and_show_import_no_torch(command: str) -> None:
    script = (
        "import sys\n"
        "from vcore.cli.main import run\n"
        f"status = run(['config', {command!r}])\n"
        "print(status, sorted({'torch', 'transformers', 'gguf'} & set(sys.modules)), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "0 []"
