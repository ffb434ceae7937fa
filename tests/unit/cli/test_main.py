"""The command itself: subcommands imported when called, and what each kind of error becomes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

from vcore.cli import main
from vcore.cli.main import COMMANDS, Subcommand, run
from vcore.errors import ConfigError, PluginError, PluginOptionsError
from vcore.version import __version__

AddCommand = Callable[[Callable[..., None]], None]


@pytest.fixture
def add_command(monkeypatch: pytest.MonkeyPatch) -> AddCommand:
    """Adds a subcommand ``try`` that does what it is given."""

    def add(action: Callable[..., None]) -> None:
        module = types.ModuleType("acme_try")
        module.command = action  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "acme_try", module)
        monkeypatch.setitem(COMMANDS, "try", Subcommand("acme_try", "Try."))

    return add


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"vcore {__version__}\n"


def test_help_names_every_subcommand_and_imports_none() -> None:
    modules = [subcommand.module for subcommand in COMMANDS.values()]
    script = (
        "import sys; from vcore.cli.main import run; status = run(['--help'])\n"
        f"print(status, sorted(set({modules!r}) & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr == "0 []\n"
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_subcommand_is_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.util.find_spec(COMMANDS[name].module) is not None
    assert run([name, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_a_typing_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugns"]) == 2
    assert "Did you mean 'plugins'" in capsys.readouterr().err


def test_a_subcommand_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "absent", Subcommand("vcore.cli.absent", "Nothing."))
    assert run(["absent"]) == 1
    assert "this installation has no `vcore absent`: there is no module vcore.cli.absent" in capsys.readouterr().err


def test_a_subcommand_whose_own_import_fails_is_not_called_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError("No module named 'acme_absent'", name="acme_absent")

    monkeypatch.setattr(main.importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="acme_absent"):
        run(["env"])


@pytest.mark.parametrize(
    ("error", "status"),
    [(PluginError("wrong"), 1), (ConfigError("wrong"), 2), (PluginOptionsError("wrong"), 2), (OSError("wrong"), 1)],
)
def test_errors_are_one_line_and_a_status(
    error: Exception, status: int, add_command: AddCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    add_command(raising(error))
    assert run(["try"]) == status
    assert capsys.readouterr() == ("", "error: wrong\n")


@pytest.mark.parametrize("arguments", [["--debug", "try"], ["try", "--debug"]])
def test_debug_shows_the_traceback(arguments: list[str], add_command: AddCommand) -> None:
    add_command(raising(PluginError("wrong")))
    with pytest.raises(PluginError):
        run(arguments)


def test_debug_after_two_dashes_is_an_argument(add_command: AddCommand) -> None:
    seen = []

    def command(words: list[str]) -> None:
        seen.extend(words)

    add_command(command)
    assert run(["try", "--", "--debug"]) == 0
    assert seen == ["--debug"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), 130), (SystemExit(3), 3), (SystemExit(), 0), (SystemExit("bye"), 1), (BrokenPipeError(), 1)],
)
def test_other_ends(error: BaseException, status: int, add_command: AddCommand) -> None:
    add_command(raising(error))
    assert run(["try"]) == status


def test_a_reader_that_goes_away_is_not_worth_a_word() -> None:
    script = "import sys; from vcore.cli.main import main; sys.argv[1:] = ['--help']; main()"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_python_dash_m() -> None:
    result = subprocess.run([sys.executable, "-m", "vcore", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"vcore {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--version"], {"torch", "pydantic", "rich", "pluggy", "yaml", "numpy", "transformers"}),
        (["plugins", "list"], {"torch", "rich", "numpy", "transformers", "triton", "gguf"}),
        (["plugins", "why", "weight_loader/gguf"], {"torch", "numpy", "transformers", "triton", "gguf"}),
    ],
)
def test_what_stays_unimported(arguments: list[str], unwanted: set[str]) -> None:
    script = (
        f"import sys; from vcore.cli.main import run; status = run({arguments!r})\n"
        "print(status, *{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    status, *imported = result.stderr.splitlines()[-1].split()
    assert status == "0"
    assert not unwanted & set(imported)
