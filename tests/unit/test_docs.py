"""The documentation against the code: hooks, kinds, keys, commands, options, JSON keys, links and command lines."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import types
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel, SecretStr

from vcore.cli import env
from vcore.cli.main import COMMANDS, Subcommand, run
from vcore.config import EngineConfig, PluginChoice, PluginsConfig
from vcore.config.flat_keywords import FLAT_KEYWORDS
from vcore.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput
from vcore.plugins import HOOKS, SPEC_TYPES, AttentionCapabilities, EntryStatus, PluginKind, discover
from vcore.plugins.api_versions import SERVED_APIS
from vcore.plugins.creation import INTERFACES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row."""
    for line in text.splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^\s*```{language}\n(.*?)^\s*```", text)


# Plugins


def test_every_hook_stands_with_its_kind_spec_and_interface() -> None:
    table = {row[1]: row for row in rows(read("docs/plugins.md")) if len(row) == 5}
    for hook, kind in HOOKS.items():
        interface = INTERFACES[kind].partition(":")[2]
        assert table[f"`{hook}`"][0] == f"`{kind.value}`"
        assert table[f"`{hook}`"][2] == f"`{SPEC_TYPES[kind].__name__}`"
        assert table[f"`{hook}`"][3].startswith(f"`{interface}`, `")
    assert len(table) == len(HOOKS) + 1  # and the header
    assert set(HOOKS.values()) == set(PluginKind)


def test_every_field_of_a_spec_status_and_plugins_key_is_described() -> None:
    text = read("docs/plugins.md")
    names = [field.name for spec in SPEC_TYPES.values() for field in fields(spec)]
    names += [field.name for field in fields(AttentionCapabilities)]
    names += [status.value for status in EntryStatus if status is not EntryStatus.OK]
    names += [f"plugins.{name}" for name in PluginsConfig.model_fields]
    assert not [name for name in names if f"`{name}`" not in text]


def test_the_stated_contract_version_is_the_one_that_is_served() -> None:
    assert {str(served.current) for served in SERVED_APIS.values()} == {"1.0"}
    assert "All kinds are at 1.0." in read("docs/plugins.md")


@pytest.mark.parametrize("page", ["README.md", "docs/plugins.md"])
def test_the_plugins_in_the_docs_work(page: str, tmp_path: Path) -> None:
    sources = [block for block in fenced(read(page), "python") if "@hookimpl" in block]
    assert sources
    for source in sources:
        file = tmp_path / source.partition("\n")[0].removeprefix("# ")
        file.write_text(source, encoding="utf-8")
        catalog = discover(PluginsConfig(load=(str(file),)))
        mine = [entry for entry in catalog.entries if entry.origin.path == str(file)]
        assert [entry.status for entry in mine] == [EntryStatus.OK]
        catalog.check(mine[0])


# Configuration


def type_text(annotation: Any) -> str:
    """A field's type as the table has it."""
    if annotation is PluginChoice:
        return "plugin"
    if annotation is type(None):
        return "none"
    if get_origin(annotation) is Annotated:
        return type_text(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " or ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(map(type_text, get_args(annotation)))
    if get_origin(annotation) is tuple:
        return f"list of {type_text(get_args(annotation)[0])}s"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
    return "secret" if annotation is SecretStr else names[annotation]


def default_text(value: object) -> str:
    if isinstance(value, PluginChoice):
        return value.name
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return "[]" if value == () else str(value)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, type and default of every key that holds no others."""
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not PluginChoice:
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}`", type_text(annotation), f"`{default_text(info.get_default())}`"


def test_every_key_stands_with_its_type_and_default() -> None:
    table = [tuple(row[:3]) for row in rows(read("docs/configuration.md")) if len(row) == 4 and row[0] != "key"]
    assert table == list(leaves(EngineConfig))


def test_every_flat_keyword_stands_with_its_key() -> None:
    table = {row[0]: row[1] for row in rows(read("docs/configuration.md")) if len(row) == 2 and row[0] != "keyword"}
    assert table == {f"`{keyword}`": f"`{key}`" for keyword, key in FLAT_KEYWORDS.items()}


# Commands


def commands() -> dict[str, Any]:
    """Every command, as ``"plugins list"``. Their class differs between typer's versions."""
    found: dict[str, Any] = {}
    for name, subcommand in COMMANDS.items():
        loaded = load(name, subcommand)
        inner = getattr(loaded, "commands", None)
        if inner is None:
            found[name] = loaded
        else:
            found |= {f"{name} {sub}": command for sub, command in inner.items()}
            if loaded.invoke_without_command:
                found[name] = loaded
    return found


def load(name: str, subcommand: Subcommand) -> Any:
    module = importlib.import_module(subcommand.module)
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False)
        group.command(name)(module.command)
    return typer.main.get_command(group)


def sections() -> dict[str, str]:
    """The text below each heading of docs/cli.md that is a command."""
    parts = re.split(r"(?m)^##+ (.*)$", read("docs/cli.md"))
    return {title.strip("`").removeprefix("vcore "): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    found = {title for title in sections() if title.split()[0] in COMMANDS}
    assert found == set(commands())


SHARED = ("--config", "--set", "-p", "--json", "--model", "--help")
"""Options that are described once."""


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_is_described(name: str) -> None:
    text = read("docs/cli.md").partition("\n## ")[0]
    for parameter in commands()[name].params:
        if parameter.param_type_name == "option":
            option = parameter.opts[0]
            where = text if option in SHARED else sections()[name]
            assert f"`{option}" in where, f"{name} {option}"


def returned_keys(file: str, function: str) -> set[str]:
    """The keys of the dictionary that a function of the benchmarks returns."""
    tree = ast.parse(read(file))
    [found] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    returns = [node.value for node in ast.walk(found) if isinstance(node, ast.Return)]
    return {key.value for value in returns if isinstance(value, ast.Dict) for key in value.keys}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["throughput", "latency", "startup", "overhead", "kernels"])
def test_the_json_keys_of_the_benchmarks_are_described(name: str) -> None:
    keys = returned_keys(f"vcore/bench/{name}.py", f"measure_{name}")
    assert keys
    assert not [key for key in keys if f"`{key}`" not in sections()[f"bench {name}"]]


def test_the_json_keys_of_generate_are_described() -> None:
    kinds = (RequestOutput, CompletionOutput, RequestMetrics, Logprob)
    keys = {field.name for kind in kinds for field in fields(kind)} | {"queue_time", "ttft", "mean_itl", "model"}
    assert not [key for key in keys if f"`{key}`" not in sections()["generate"]]


def test_the_json_keys_of_env_are_described() -> None:
    assert not [key for key in env.describe() if f"`{key}`" not in sections()["env"]]


@pytest.mark.parametrize(
    "arguments",
    [
        "models list",
        "plugins list",
        "plugins info eviction_policy/lru",
        "plugins check eviction_policy/lru",
        "plugins why eviction_policy/lru",
        "config show",
        "config validate --portable",
        "pull",
    ],
)
def test_the_json_keys_of_a_command_are_described(arguments: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments.split(), "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    name = arguments if arguments == "pull" else " ".join(arguments.split()[:2])
    keys = set(printed)
    for value in printed.values():
        keys |= set(value[0]) if isinstance(value, list) and value and isinstance(value[0], dict) else set()
    own = {"eviction_policy/lru": {"load", "api", "rank", "requires", "summary"}}  # of the spec, in plugins.md
    keys -= own.get(arguments.split()[-1], set())
    assert not [key for key in keys if f"`{key}`" not in sections()[name]]


# Every page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [one for one in targets if "://" not in one and not (page.parent / one).exists()]
    assert not missing


def test_the_readme_links_to_every_page() -> None:
    text = read("README.md")
    assert not [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_parse(page: Path) -> None:
    known = commands()
    for block in fenced(page.read_text(encoding="utf-8"), "sh"):
        for line in re.split(r"\n|&&|\|", block):
            words = shlex.split(line.partition(" #")[0], comments=True)
            if not words or words[0] != "vcore":
                continue
            name = next((name for name in known if words[1 : 1 + len(name.split())] == name.split()), None)
            assert name is not None, line
            rest = words[1 + len(name.split()) :]
            known[name].make_context(name, [word for word in rest if word != "--debug"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_prose_exist(page: Path) -> None:
    known = commands()
    groups = {name.split()[0] for name in known if " " in name}
    for words in re.findall(r"`vcore ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
        first, *others = words.split()
        assert first in COMMANDS, words
        if first in groups and others and others[0].isalpha() and others[0].islower():
            assert f"{first} {others[0]}" in known, words
