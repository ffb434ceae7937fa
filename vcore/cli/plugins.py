"""``vcore plugins``: what plugins there are, what each says, whether it works, why it is selected; new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcore.cli.new_plugin import new
from vcore.cli.output import print_table, reserved_stdout
from vcore.cli.shared_options import Config, Json, Plugins, Set
from vcore.errors import PluginError, PluginNotFoundError

if TYPE_CHECKING:
    from vcore.config import EngineConfig
    from vcore.plugins import Catalog, CatalogEntry
    from vcore.plugins.stale_metadata import StaleEntryPoint

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, explain, check and begin plugins.")

Addresses = Annotated[
    list[str] | None, typer.Argument(metavar="[[KIND/]NAME[@DISTRIBUTION]]...", help="Which plugins; all if none.")
]
Address = Annotated[str, typer.Argument(metavar="[KIND/]NAME[@DISTRIBUTION]", help="Which plugin.")]


@app.command("list")
def list_plugins(config: Config = None, set_: Set = None, plugins: Plugins = None, as_json: Json = False) -> None:
    """Every plugin there is, with its distribution, whether it can be used, and if not, why.

    Entry points that an editable install has by now and its metadata misses are named below, with what to run.
    """
    from vcore.plugins.stale_metadata import stale_entry_points

    with reserved_stdout(as_json) as emit:
        catalog, _ = _discover(config, set_, plugins)
        stale = stale_entry_points()
        if as_json:
            emit({"plugins": [_row(entry) for entry in catalog.entries], "stale": [_stale_row(one) for one in stale]})
            return
        header = ("KIND", "NAME", "DISTRIBUTION", "VERSION", "STATUS", "")
        print_table(header, [_cells(entry) for entry in _sorted(catalog.entries)])
        for one in stale:
            print(f"stale: {one}")


@app.command()
def info(
    address: Address,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """All that a plugin says of itself, and the schema of its options."""
    with reserved_stdout(as_json) as emit:
        catalog, _ = _discover(config, set_, plugins)
        described = [_describe(entry, catalog) for entry in _matching(catalog, address)]
        if as_json:
            emit({"plugins": described})
            return
        for one in described:
            print_table(("FIELD", "VALUE"), [(key, _shown(value)) for key, value in one.items()])


@app.command()
def check(
    addresses: Addresses = None,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Import every plugin for real: code, options, interface. Exit status 1 if one is broken or incompatible.

    A plugin that is disabled, or lacks a package that it requires, is reported and is no failure,
    unless `plugins.require` names it.
    """
    with reserved_stdout(as_json) as emit:
        catalog, _ = _discover(config, set_, plugins)
        wanted: Sequence[CatalogEntry] = catalog.entries
        if addresses:
            wanted = [entry for address in addresses for entry in _matching(catalog, address)]
        rows = [_checked_row(entry, catalog) for entry in wanted]
        required = _required_problem(catalog)
        failed = required is not None or any(row["status"] in _FAILURES for row in rows)
        if as_json:
            emit({"ok": not failed, "plugins": rows, "required": required})
        else:
            cells = [
                (row["status"], f"{row['kind'] or '?'}/{row['name']}@{row['distribution']}", row["reason"])
                for row in rows
            ]
            print_table(("STATUS", "PLUGIN", ""), cells)
            if required is not None:
                print(required)
        if failed:
            raise typer.Exit(1)


@app.command()
def why(
    address: Address,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Why a plugin is, or is not, what the configuration selects."""
    from vcore.plugins.explanation import explain

    with reserved_stdout(as_json) as emit:
        catalog, tree = _discover(config, set_, plugins)
        explained = []
        for entry in _matching(catalog, address):
            explanation = explain(entry, catalog, tree)
            explained.append(
                {**_row(entry), "selected": explanation.selected, "explanation": list(explanation.sentences)}
            )
        if as_json:
            emit({"plugins": explained})
            return
        for one in explained:
            verdict = {True: "selected", False: "not selected", None: "depends on the job"}[one["selected"]]
            print(f"{_address(one)}: {one['status']}, {verdict}")
            for sentence in one["explanation"]:
                print(f"  - {sentence}")


app.command("new")(new)

_FAILURES = ("broken", "duplicate", "incompatible")


def _discover(config: Path | None, set_: list[str] | None, plugins: list[str] | None) -> tuple[Catalog, EngineConfig]:
    from vcore.config.cli_options import config_from_cli
    from vcore.plugins import discover

    tree, base_dir = config_from_cli(config, set_ or [], plugins or [], None)
    return discover(tree.plugins, base_dir=base_dir), tree


def _sorted(entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
    return sorted(entries, key=lambda entry: (entry.kind or "~", entry.name, entry.distribution))


def _row(entry: CatalogEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind.value if entry.kind is not None else None,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "status": entry.status.value,
        "reason": entry.reason,
        "notes": list(entry.notes),
    }


def _stale_row(stale: StaleEntryPoint) -> dict[str, Any]:
    return {
        "distribution": stale.distribution,
        "name": stale.name,
        "value": stale.value,
        "problem": "gone" if stale.is_gone else "missing",
        "remedy": stale.remedy,
    }


def _address(row: dict[str, Any]) -> str:
    return f"{row['kind'] or '?'}/{row['name']}@{row['distribution']}"


def _cells(entry: CatalogEntry) -> tuple[str, ...]:
    summary = entry.spec.summary if entry.ok and entry.spec is not None else ""
    remark = "; ".join(filter(None, [entry.reason or summary, *entry.notes]))
    kind = entry.kind.value if entry.kind is not None else "?"
    return kind, entry.name, entry.distribution, entry.version or "-", entry.status.value, remark


def _matching(catalog: Catalog, address: str) -> list[CatalogEntry]:
    """What ``[KIND/]NAME[@DISTRIBUTION]`` may mean, broken registrations of that name included.

    Raises:
        PluginNotFoundError: nothing.
        ConfigError: there is no such kind.
    """
    from vcore.plugins.address import Address as PluginAddress
    from vcore.suggestions import did_you_mean

    wanted = PluginAddress.parse(address)
    found = [
        entry
        for entry in catalog.entries
        if entry.name == wanted.name and wanted.names_distribution(entry)
        if wanted.kind is None or entry.kind in (wanted.kind, None)
    ]
    if found:
        return found
    if wanted.kind is not None:
        catalog.find(wanted.kind, address.partition("/")[2])
    names = sorted({entry.name for entry in catalog.entries})
    hint = did_you_mean(wanted.name, names)
    raise PluginNotFoundError(f"there is no plugin called {address!r}{hint}; there are: {', '.join(names)}")


def _describe(entry: CatalogEntry, catalog: Catalog) -> dict[str, Any]:
    described = {**_row(entry), "origin": str(entry.origin), "path": entry.origin.path, "sha256": entry.origin.sha256}
    if entry.spec is None:
        return described
    for field in fields(entry.spec):
        if field.name not in ("name", "options"):
            described[field.name] = _plain(getattr(entry.spec, field.name))
    described["options"] = _options_schema(entry, catalog)
    return described


def _options_schema(entry: CatalogEntry, catalog: Catalog) -> Any:
    if not entry.ok:
        return None
    try:
        model = catalog.options_model(entry)
    except PluginError as error:
        return {"error": str(error)}
    return None if model is None else model.model_json_schema()


def _plain(value: Any) -> Any:
    """A spec's field as JSON data."""
    from dataclasses import asdict, is_dataclass

    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(one) for key, one in asdict(value).items()}
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def _shown(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def _checked_row(entry: CatalogEntry, catalog: Catalog) -> dict[str, Any]:
    row = _row(entry)
    if not entry.ok:
        return row
    try:
        catalog.check(entry)
    except PluginError as error:
        row.update(status="broken", reason=str(error))
    return row


def _required_problem(catalog: Catalog) -> str | None:
    try:
        catalog.require()
    except PluginError as error:
        return str(error)
    return None
