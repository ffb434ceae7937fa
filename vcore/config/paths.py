"""Where vcore keeps files of the user: the platform's own place for caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["model_cache_dir", "user_cache_dir"]


def user_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/vcore`` or ``~/.cache/vcore``; ``~/Library/Caches/vcore`` on macOS,
    ``%LOCALAPPDATA%\\vcore\\cache`` on Windows. It may not exist yet."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vcore" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vcore"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vcore"


def model_cache_dir() -> Path:
    """Where fetched models are kept."""
    return user_cache_dir() / "models"
