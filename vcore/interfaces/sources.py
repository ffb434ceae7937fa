"""What a model source implements: from the name that a user writes to files on this machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ModelLicence", "ModelSource", "ModelSourceContext", "ProgressCallback"]

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with a description, bytes done, and bytes in all (None while unknown)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSourceContext:
    """What the core tells a source when it builds it."""

    cache_dir: Path
    """Where fetched models are kept: ``<user cache>/vcore/models``."""
    progress: ProgressCallback | None = None
    offline: bool = False
    """If set, nothing is fetched: what is not in the cache is an error that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLicence:
    """The terms that a model comes under."""

    name: str
    """As its owner calls it."""
    url: str
    """Where to read it."""
    file: str | None = None
    """Its name in the model's folder, if the model brings a copy."""


class ModelSource(ABC):
    """A place that models come from (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (a `ModelSourceContext`).
    """

    @abstractmethod
    def fetch(self, name: str, *, from_file: Path | None = None) -> Path:
        """The folder (or single file) of model `name` on this machine, fetched if it is not there yet.

        Safe when interrupted and when several processes call it at once.

        Args:
            name: without the scheme.
            from_file: a local archive to take the model from instead of the network.

        Raises:
            ModelNotFoundError: there is no such model here.
            DownloadError: it could not be fetched whole, or its checksum is wrong.
        """

    def licence(self, name: str) -> ModelLicence | None:
        """The terms of model `name` that a user should be told of; None if there are none that the source knows of.

        Args:
            name: without the scheme.

        Raises:
            ModelNotFoundError: there is no such model here.
        """
        return None
