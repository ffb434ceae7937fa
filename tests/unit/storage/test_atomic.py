"""Folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcore_model_zoo.storage.atomic import fresh_folder, publish_folder
from vcore_model_zoo.storage.checksums import sha256_of


def test_a_fresh_folder_is_empty_and_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "left over").write_bytes(b"x")
    with fresh_folder(tmp_path / "work") as work:
        assert list(work.iterdir()) == []
        (work / "new").write_bytes(b"y")
    assert not (tmp_path / "work").exists()


def test_a_fresh_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), fresh_folder(tmp_path / "work"):
        _ = 1 / 0
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("before", [True, False])
def test_publishing_replaces_what_was_there(tmp_path: Path, before: bool) -> None:
    if before:
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "old").write_bytes(b"x")
    with fresh_folder(tmp_path / "work") as work:
        (work / "new").write_bytes(b"y")
        publish_folder(work, tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
