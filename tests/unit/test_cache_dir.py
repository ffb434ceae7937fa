"""The cache folder, by the custom of each platform."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vcore.cache_dir import model_cache_dir, user_cache_dir
from vcore.errors import ConfigError


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", ".cache/vcore"),
        ("darwin", "Library/Caches/vcore"),
        ("win32", "AppData/Local/vcore/Cache"),
    ],
)
def test_by_platform(home: Path, monkeypatch: pytest.MonkeyPatch, platform: str, expected: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert user_cache_dir() == home / expected
    assert model_cache_dir() == home / expected / "models"


def test_the_environment_is_followed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert user_cache_dir() == home / "xdg" / "vcore"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache_dir() == home / ".cache" / "vcore"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(home / "local"))
    assert user_cache_dir() == home / "local" / "vcore" / "Cache"


def test_it_can_be_given(tmp_path: Path) -> None:
    assert user_cache_dir(tmp_path) == tmp_path
    assert model_cache_dir(tmp_path) == tmp_path / "models"


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        user_cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "vcore"
