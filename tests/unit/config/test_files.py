"""Configuration files that cannot be read, or hold a key twice; YAML as version 1.2 has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcore.config.files import parse_value, read_file
from vcore.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.yaml", "cache:\n  block_size: 8\n  block_size: 9\n", "line 3: the key 'block_size' stands there twice"),
        ("a.yaml", "cache: {a: 1, b: 2, a: 3}\n", "line 1: the key 'a' stands there twice"),
        ("a.json", '{"a": {"b": 1, "b": 1}}', "the key 'b' stands twice"),
        ("a.toml", "a = 1\na = 2\n", "not well-formed TOML"),
        ("a.yaml", "a: [1\n", "not well-formed YAML: line 2, column 1"),
        ("a.json", "{", "not well-formed JSON"),
        ("a.toml", "a = ", "not well-formed TOML"),
        ("a.yaml", "- 1\n", "found list at the top"),
        ("a.json", "3", "found int at the top"),
        ("a.ini", "", r"ends in \.yaml, \.yml, \.toml, \.json, not in '\.ini'"),
        ("a", "", "not in ''"),
        ("a.yaml", "a: !!python/object/apply:os.getcwd []\n", "not well-formed YAML"),
        ("a.yaml", "a: 1\n---\nb: 2\n", "not well-formed YAML"),
        ("a.yaml", "a: &a [*a]\n", "64 deep within each other, or one holds itself"),
        ("a.yaml", "a: &a {b: *a}\n", "64 deep within each other, or one holds itself"),
        ("a.yaml", "a: " + "[" * 65 + "]" * 65, "64 deep within each other"),
        ("a.yaml", "[" * 5000, "64 deep within each other"),
        ("a.json", "[" * 100_000, "64 deep within each other"),
        ("a.yaml", "a: !!bool maybe", "does not fit its tag"),
        ("a.yaml", "a: !!timestamp noon", "does not fit its tag"),
        ("a.yaml", "a: " + "1" * 5000, "too many digits"),
    ],
)
def test_malformed_files_are_refused_with_their_path(tmp_path: Path, name: str, text: str, match: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=match) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_nesting_is_measured_once_however_often_an_alias_is_used(tmp_path: Path) -> None:
    """Sixty lists, each of which holds the one before twice: 2**60 places, were each looked at."""
    lines = ["a0: &a0 []", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    (tmp_path / "a.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert len(read_file(tmp_path / "a.yaml")) == 60


@pytest.mark.parametrize(("name", "text"), [("a.yaml", "a: 1"), ("a.toml", "a = 1"), ("a.json", '{"a": 1}')])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_file(tmp_path / name) == {"a": 1}


@pytest.mark.parametrize("text", ["[" * 5000, "!!bool maybe", "1" * 5000])
def test_values_of_the_command_line_are_refused_likewise(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_value(text)


def test_missing_unreadable_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read_file(tmp_path / "a.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "folder.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8"):
        read_file(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("name", "text"), [("a.yaml", ""), ("a.yaml", "# nothing\n"), ("a.json", "  "), ("a.toml", "")]
)
def test_an_empty_file_says_nothing(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_file(tmp_path / name) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("8", 8),
        ("-8", -8),
        ("010", 10),
        ("0x10", 16),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("1e-3", 1e-3),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("2026-01-01", "2026-01-01"),
        ("'8'", "8"),
        ("cuda:0", "cuda:0"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n", encoding="utf-8")
    assert read_file(path)["more"] == {"x": 1, "y": 3}
