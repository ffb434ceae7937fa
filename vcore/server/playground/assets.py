"""`Assets`: the few files that the page is made of, read once, with their media types and hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["Asset", "Assets"]

_MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    content: bytes
    media_type: str
    etag: str


class Assets:
    """Files by name. What is not among them does not exist, so that no path of a client's is ever opened."""

    def __init__(self) -> None:
        self._assets = {}
        for file in files(__package__).joinpath("static").iterdir():
            media_type = _MEDIA_TYPES.get("." + file.name.rpartition(".")[2])
            if media_type is not None:
                content = file.read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                self._assets[file.name] = Asset(content, media_type, etag)

    @property
    def names(self) -> list[str]:
        """Every file's name."""
        return sorted(self._assets)

    def get(self, name: str) -> Asset | None:
        """The file of that name."""
        return self._assets.get(name)
