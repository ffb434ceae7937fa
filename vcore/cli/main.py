"""The ``vcore`` command: a table of subcommands, each imported only when it is called, and what errors become.

Exit status: 0 done; 1 a `VcoreError`, or a file or stream that failed; 2 a wrong command line or configuration;
130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vcore.cli.output import print_error
from vcore.cli.streams import flush_stdout, prepare_streams
from vcore.errors import ConfigError, VcoreError
from vcore.version import __version__

__all__ = ["COMMANDS", "Subcommand", "app", "main", "run"]

_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Where a subcommand is."""

    module: str
    """Has either ``app``, a `typer.Typer`, or ``command``, a function."""
    help: str
    """One line, so that ``vcore --help`` need not import the module."""


COMMANDS: dict[str, Subcommand] = {
    "generate": Subcommand("vcore.cli.generate", "Complete prompts."),
    "chat": Subcommand("vcore.cli.chat", "Talk with a model in the terminal."),
    "serve": Subcommand("vcore.cli.serve", "Serve a model to clients of the OpenAI API."),
    "trace": Subcommand("vcore.cli.trace", "Fetch a timeline of a server's steps and requests."),
    "models": Subcommand("vcore.cli.models", "List architectures; check whether a model can be served."),
    "plugins": Subcommand("vcore.cli.plugins", "List, explain, check and begin plugins."),
    "config": Subcommand("vcore.cli.config", "Show, explain and validate a configuration."),
    "pull": Subcommand("vcore.cli.pull", "Fetch a model."),
    "env": Subcommand("vcore.cli.env", "Describe this machine and installation, for error reports."),
    "bench": Subcommand("vcore.cli.bench", "Measure throughput, latency, startup, overhead, kernels and a server."),
    "simulate": Subcommand("vcore.cli.simulate", "Serve recorded traffic without a model."),
}
"""Every subcommand, in the order of the help."""


class _Stub(TyperCommand):
    """Stands for a subcommand that has not been imported, in the help and among the names."""


class _LazyGroup(TyperGroup):
    """Subcommands from `COMMANDS`, imported when called; for the help their one line is enough.

    The context's class differs between typer's versions, so it is left open.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        for name, subcommand in COMMANDS.items():
            self.commands.setdefault(name, _Stub(name=name, help=subcommand.help))
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        self.list_commands(ctx)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0] if args else ""
        if isinstance(self.get_command(ctx, name), _Stub):
            self.commands[name] = _load(name)
        return super().resolve_command(ctx, args)


def _load(name: str) -> Any:
    subcommand = COMMANDS[name]
    try:
        module = importlib.import_module(subcommand.module)
    except ModuleNotFoundError as error:
        if error.name != subcommand.module:
            raise
        raise VcoreError(f"this installation has no `vcore {name}`: there is no module {error.name}") from None
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False)
        group.command(name)(module.command)
    loaded = typer.main.get_command(group)
    loaded.name = name
    return loaded


app = typer.Typer(
    name="vcore",
    cls=_LazyGroup,
    no_args_is_help=True,
    help="An LLM inference engine whose every choice is a plugin.",
    epilog="`--debug` anywhere on the command line shows the traceback of an error.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vcore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of ``vcore`` itself."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status.

    Args:
        arguments: without the program's name. ``--debug`` may stand anywhere before ``--``.
    """
    arguments, debug = _take_debug(arguments)
    try:
        typer.main.get_command(app).main(args=arguments, prog_name="vcore")
        status = 0
    except SystemExit as request:
        status = _status(request)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BrokenPipeError:
        status = 1
    except VcoreError as error:
        if debug:
            raise
        print_error(error)
        status = 2 if isinstance(error, ConfigError) else 1
    except OSError as error:  # such as a full disk under stdout
        if debug:
            raise
        gone = isinstance(error, FileNotFoundError) and error.filename is None  # as os.getcwd() says it
        print_error(OSError("the working directory no longer exists; change to another one") if gone else error)
        status = 1
    failure = flush_stdout()
    if failure is None:
        return status
    if status == 0 and not isinstance(failure, BrokenPipeError):
        print_error(failure)
    return status or 1


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return [*options, *arguments[end:]], len(options) < end


def _status(request: SystemExit) -> int:
    if isinstance(request.code, int):
        return request.code
    if request.code is not None:
        print(request.code, file=sys.stderr)
    return 0 if request.code is None else 1


def main() -> None:
    """Run the command line of this process, and exit. What is logged goes to stderr."""
    import logging

    prepare_streams()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    sys.exit(run(sys.argv[1:]))
