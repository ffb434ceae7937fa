"""Where vcore keeps files that it can make or fetch again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["model_cache_dir", "user_cache_dir"]


def user_cache_dir(override: Path | None = None) -> Path:
    """The folder, by the platform's custom; it need not exist yet.

    ``$XDG_CACHE_HOME/vcore`` or ``~/.cache/vcore`` on Linux, ``~/Library/Caches/vcore`` on macOS,
    ``%LOCALAPPDATA%\\vcore\\Cache`` on Windows.

    Args:
        override: what to use instead, as it stands.
    """
    if override is not None:
        return override
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "vcore" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vcore"
    stated = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    base = Path(stated) if os.path.isabs(stated) else Path.home() / ".cache"
    return base / "vcore"


def model_cache_dir(override: Path | None = None) -> Path:
    """Where fetched models are kept: ``models`` in `user_cache_dir`."""
    return user_cache_dir(override) / "models"
