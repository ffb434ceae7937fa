"""`load_config`: every way to write a configuration, what wins, and what a mistake is told."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vcore.config import CacheConfig, EngineConfig, PluginChoice, load_config, parse_set
from vcore.errors import ConfigError

EXPECTED = EngineConfig(
    cache=CacheConfig(block_size=8, eviction=PluginChoice(name="lru", options={"window": 2})),
    executor=PluginChoice(name="uniproc"),
)

YAML = """
$schema: ./schema.json
cache:
  block_size: 8
  eviction: {name: lru, options: {window: 2}}
executor: uniproc
scheduler:
"""
TOML = """
executor = "uniproc"
[cache]
block_size = 8
[cache.eviction]
name = "lru"
options = {window = 2}
"""
JSON = (
    '{"$schema": "x", "cache.block_size": 8, "cache.eviction": {"name": "lru", "options": {"window": 2}}, '
    '"executor": "uniproc"}'
)


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.yml", YAML), ("a.toml", TOML), ("a.json", JSON)])
def test_every_file_format_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_config(tmp_path / name) == EXPECTED
    assert load_config(str(tmp_path / name)) == EXPECTED


@pytest.mark.parametrize(
    "tree",
    [
        {"cache": {"block_size": 8, "eviction": {"name": "lru", "options": {"window": 2}}}, "executor": "uniproc"},
        {
            "cache.block_size": 8,
            "cache.eviction.name": "lru",
            "cache.eviction.options.window": 2,
            "executor": "uniproc",
        },
        {"cache": {"block_size": 8, "eviction": "lru", "eviction.options": {"window": 2}}, "executor.name": "uniproc"},
        {"cache": EXPECTED.cache, "executor": PluginChoice(name="uniproc")},
        EXPECTED,
    ],
)
def test_nested_dotted_and_tree_forms_are_the_same(tree: Any) -> None:
    assert load_config(tree) == EXPECTED


def test_nothing_gives_the_defaults() -> None:
    assert load_config() == load_config(None) == load_config({}) == EngineConfig()


def test_overrides_win_over_a_file_and_leave_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(YAML, encoding="utf-8")
    by_keyword = load_config(tmp_path / "a.yaml", {"block_size": 32})
    by_set = load_config(tmp_path / "a.yaml", ["cache.block_size=32"])
    by_tree = load_config(tmp_path / "a.yaml", {"cache": {"block_size": 32}})
    assert by_keyword == by_set == by_tree
    assert by_keyword.cache.block_size == 32
    assert by_keyword.cache.eviction == EXPECTED.cache.eviction


def test_options_stay_with_the_name_that_they_were_written_for() -> None:
    base = {"cache.eviction": {"name": "lru", "options": {"window": 2, "depth": 1}}}
    same = load_config(base, ["cache.eviction.options.window=3"])
    assert same.cache.eviction.options == {"window": 3, "depth": 1}
    other = load_config(base, ["cache.eviction=fifo"])
    assert other.cache.eviction == PluginChoice(name="fifo")
    other = load_config(base, {"cache.eviction": {"name": "fifo"}})
    assert other.cache.eviction == PluginChoice(name="fifo")


def test_option_names_may_hold_dots() -> None:
    loaded = load_config({"cache.eviction": {"name": "lru", "options": {"a.b": 1}}})
    assert loaded.cache.eviction.options == {"a.b": 1}


def test_set_values_are_yaml_and_the_last_counts() -> None:
    items = ["a.b=1", "a.c=true", "a.d=[x, 2]", "a.e=no", "a.f={name: y}", "a.g=1e-3", "a.h=2026-01-01", "a.i=x=y"]
    parsed = parse_set([*items, "a.b=2"])
    assert parsed == {
        "a.b": 2,
        "a.c": True,
        "a.d": ["x", 2],
        "a.e": "no",
        "a.f": {"name": "y"},
        "a.g": 1e-3,
        "a.h": "2026-01-01",
        "a.i": "x=y",
    }


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "conf", tmp_path / "elsewhere"
    (folder / "beside").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (folder / "a.yaml").write_text(
        "model: {path: beside, tokenizer: ../tok}\nplugins: {load: [./mine.py, package.module]}\n", encoding="utf-8"
    )
    loaded = load_config(folder / "a.yaml")
    assert loaded.model.path == str(folder / "beside")
    assert loaded.model.tokenizer == str(tmp_path / "tok")
    assert loaded.plugins.load == (str(folder / "mine.py"), "package.module")
    overridden = load_config(folder / "a.yaml", ["model.path=smollm2-135m", "plugins.load=[./other.py]"])
    assert overridden.model.path == "smollm2-135m"
    assert overridden.plugins.load == (str(elsewhere / "other.py"),)


@pytest.mark.parametrize(
    ("tree", "fragments"),
    [
        ({"cache": {"blok_size": 8}}, ["cache.blok_size: unknown key", "did you mean 'cache.block_size'?"]),
        ({"block_size": 8}, ["block_size: unknown key", "did you mean 'cache.block_size'?"]),
        ({"gpu_memory_utilization": 0.5}, ["did you mean 'cache.memory_fraction'?"]),
        ({"cash": {}}, ["cash: unknown key", "did you mean 'cache'?"]),
        ({"cash.block_size": 1}, ["cash: unknown key", "did you mean 'cache'?"]),
        ({"zzz": 1}, ["zzz: unknown key", "model, attention, cache, scheduler"]),
        ({"cache": {"block_size": 0}}, ["cache.block_size: found 0, expected a number of at least 1 or 'auto'"]),
        ({"cache.num_blocks": 10**20}, ["found 100000000000000000000, expected a number of at most 2147483647"]),
        ({"runtime.num_threads": 10**6}, ["expected a number of at most 1024"]),
        ({"runtime.seed": 2**63}, ["expected a number less than 9223372036854775808"]),
        ({"model.path": ""}, ["found '', expected a text that is not empty"]),
        ({"cache": {"block_size": True}}, ["found True, expected a whole number or 'auto'"]),
        ({"cache": {"block_size": "8"}}, ["found '8', expected a whole number or 'auto'"]),
        ({"cache.memory_fraction": 1.5}, ["cache.memory_fraction: found 1.5, expected a number of at most 1.0"]),
        ({"cache.memory_fraction": float("nan")}, ["cache.memory_fraction: found nan"]),
        ({"cache": 5}, ["cache: found 5, expected a mapping with the keys block_size"]),
        ({"model": {"dtype": "bfloat61"}}, ["model.dtype: found 'bfloat61'", "did you mean 'bfloat16'?"]),
        ({"attention.backend": 3}, ["found 3, expected the name of a plugin or a mapping"]),
        ({"attention.backend": ""}, ["attention.backend.name: found ''", "not empty"]),
        ({"attention.backend": {"options": {"a": 1}}}, ["attention.backend: options were given", "'auto'"]),
        ({"attention.backend": {"nam": "x"}}, ["did you mean 'attention.backend.name'?"]),
        ({"plugins": {"load": "x"}}, ["plugins.load: found 'x', expected a list"]),
        ({"observability.observers": ["a", {"q": 1}]}, ["observability.observers[1].q: unknown key"]),
        ({"plugins.strict": [1]}, ["plugins.strict: found a list, expected true or false"]),
        ({"model.path": {"a": 1}}, ["model.path: found a mapping, expected a text"]),
        ({1: 2}, ["the top: found the key 1"]),
        ({"cache..x": 2}, ["the top: found the key 'cache..x'"]),
        ({"cache": {3: 2}}, ["cache: found the key 3"]),
        ({"$schema": 3}, ["$schema"]),
        ({"cache": {"block_size": 8}, "cache.block_size": 16}, ["cache.block_size is given twice, as 8 and as 16"]),
        ({"executor": "a", "executor.name": "b"}, ["executor.name is given twice"]),
    ],
)
def test_mistakes_are_told_by_path(tree: Any, fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tree)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_same_value_given_twice_is_no_mistake() -> None:
    assert load_config({"cache": {"block_size": 8}, "cache.block_size": 8}).cache.block_size == 8


def test_all_problems_are_told_at_once_with_their_origin(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("cache: {block_size: -1}\nmodel: {dtypo: x}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["runtime.seed=-1"], overrides_name="--set")
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 problems in the configuration:"
    assert f"  {path}: cache.block_size: found -1, expected a number of at least 1 or 'auto'" in lines
    assert f"  {path}: model.dtypo: unknown key; did you mean 'model.dtype'?" in lines
    assert "  --set: runtime.seed: found -1, expected a number of at least 0" in lines


@pytest.mark.parametrize("item", ["cache.block_size", "=3", ""])
def test_a_set_item_without_key_or_value_is_refused(item: str) -> None:
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        load_config(None, [item])


def test_a_set_value_that_is_no_yaml_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"^cache\.eviction\.options\.key: the value is not well-formed") as caught:
        load_config(None, ["cache.eviction.options.key={s3cret"])
    assert "s3cret" not in str(caught.value)


def test_a_single_string_is_one_override() -> None:
    assert load_config(None, "cache.block_size=4").cache.block_size == 4


@pytest.mark.parametrize("source", [3, ["a"], object()])
def test_other_sources_are_refused(source: Any) -> None:
    with pytest.raises(ConfigError, match="found a configuration of type"):
        load_config(source)


def test_everything_is_frozen() -> None:
    loaded = load_config({"cache.eviction": {"name": "lru", "options": {"a": {"b": [1]}}}})
    with pytest.raises(ValidationError):
        loaded.cache = CacheConfig()  # type: ignore[misc]
    for change in (
        lambda options: options.__setitem__("c", 1),
        lambda options: options["a"].update(b=2),
        lambda options: options.pop("a"),
        lambda options: options.clear(),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change(loaded.cache.eviction.options)
    assert loaded.cache.eviction.options == {"a": {"b": (1,)}}


def test_equal_configurations_hash_alike_and_survive_pickling() -> None:
    loaded = load_config({"cache.eviction": {"name": "lru", "options": {"a": {"b": [1]}}}})
    assert hash(loaded) == hash(load_config(loaded))
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    assert loaded.model_copy(deep=True) == loaded
    assert EngineConfig.model_validate_json(loaded.model_dump_json()) == loaded
