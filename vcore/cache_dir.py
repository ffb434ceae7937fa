"""Where vcore keeps files that it can make or fetch again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vcore.errors import ConfigError

__all__ = ["model_cache_dir", "user_cache_dir"]


def user_cache_dir(override: Path | None = None) -> Path:
    """The folder, by the platform's custom; it need not exist yet.

    ``$XDG_CACHE_HOME/vcore`` or ``~/.cache/vcore`` on Linux, ``~/Library/Caches/vcore`` on macOS,
    ``%LOCALAPPDATA%\\vcore\\Cache`` on Windows.

    Args:
        override: what to use instead, as it stands.

    Raises:
        ConfigError: it would be in the user's home folder, and there is none.
    """
    if override is not None:
        return override
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else _home() / "AppData" / "Local") / "vcore" / "Cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "vcore"
    stated = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    base = Path(stated) if os.path.isabs(stated) else _home() / ".cache"
    return base / "vcore"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder, so there is no place for the cache: set XDG_CACHE_HOME to a folder"
        ) from None


def model_cache_dir(override: Path | None = None) -> Path:
    """Where fetched models are kept: ``models`` in `user_cache_dir`."""
    return user_cache_dir(override) / "models"
