"""The platform's own place for files that can be fetched again."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcore.cache_dir import model_cache_dir, user_cache_dir


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/somewhere"}, Path("/somewhere/vcore/models")),
        ("linux", {"XDG_CACHE_HOME": "relative"}, Path.home() / ".cache" / "vcore" / "models"),
        ("linux", {}, Path.home() / ".cache" / "vcore" / "models"),
        ("darwin", {}, Path.home() / "Library" / "Caches" / "vcore" / "models"),
        ("win32", {"LOCALAPPDATA": "/local"}, Path("/local/vcore/Cache/models")),
        ("win32", {}, Path.home() / "AppData" / "Local" / "vcore" / "Cache" / "models"),
    ],
)
def test_models_are_kept_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: Path
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert model_cache_dir() == expected


def test_an_override_stands(tmp_path: Path) -> None:
    assert user_cache_dir(tmp_path) == tmp_path
    assert model_cache_dir(tmp_path) == tmp_path / "models"
