"""The command ``vcore plugins new``: what it writes, where, and what it says to do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Json
from vcore.errors import VcoreError

if TYPE_CHECKING:
    from vcore.cli.new_plugin.names import PluginNames
    from vcore.cli.new_plugin.templates import PluginTemplates

__all__ = ["new"]

Kind = Annotated[str, typer.Argument(metavar="KIND", help="Such as eviction_policy; `vcore plugins list` shows them.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What users will write to choose it.")]
Into = Annotated[Path, typer.Option("--into", metavar="DIR", help="Where to put it; here if not given.")]
OneFile = Annotated[bool, typer.Option("--one-file", help="One module for -p, instead of a distribution.")]


def new(kind: Kind, name: Name, into: Into = Path(), one_file: OneFile = False, as_json: Json = False) -> None:
    """Write the starting point of a plugin: a folder NAME to install, or one file. It works as it stands."""
    from vcore.cli.new_plugin.names import PluginNames
    from vcore.cli.new_plugin.templates import PluginTemplates
    from vcore.plugins.address import parse_kind

    with reserved_stdout(as_json) as emit:
        names = PluginNames(parse_kind(kind), name)
        templates = PluginTemplates(names)
        if one_file:
            target = into / f"{names.file}.py"
            written = _write_file(target, templates.one_file())
        else:
            names.check_is_free()
            target = into / name
            written = _write_folder(target, templates.distribution())
        steps = _next_steps(names, templates, target, one_file)
        if as_json:
            distribution = None if one_file else names.distribution
            files = [str(path) for path in written]
            emit({"kind": kind, "name": name, "distribution": distribution, "files": files, "next": steps})
            return
        for path in written:
            print(f"wrote {path}")
        print("next:")
        for step in steps:
            print(f"  {step}")


def _write_file(path: Path, text: str) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise _taken(path) from None
    return [path]


def _write_folder(folder: Path, texts: dict[str, str]) -> list[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        raise _taken(folder) from None
    return [path for name, text in texts.items() for path in _write_file(folder / name, text)]


def _taken(path: Path) -> VcoreError:
    return VcoreError(
        f"{path} is there already, and nothing was written; choose another NAME, or --into another folder"
    )


def _next_steps(names: PluginNames, templates: PluginTemplates, target: Path, one_file: bool) -> list[str]:
    """Command lines, and how to select the plugin."""
    import shlex

    place = shlex.quote(str(target) if target.is_absolute() else f"./{target}")
    load = f" -p {place}" if one_file else ""
    steps = [] if one_file else [f"pip install -e {place}", f"pytest {place}"]
    steps.append(f"vcore plugins check{load} {names.kind}/{names.name}")
    if templates.use_is_command:
        steps.append(f'vcore generate "Hello"{load} {templates.use}')
    else:
        steps.append(templates.use)
    return steps
