"""Builders of catalog entries and of plugins, installed and not."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vcore.interfaces.eviction import EvictionPolicy
from vcore.plugins import CatalogEntry, EntryStatus, EvictionPolicySpec, Origin, PluginSpec
from vcore.plugins.entry import OriginKind

_unique = itertools.count()


class ListEviction(EvictionPolicy):
    """The least that is an eviction policy."""

    def __init__(self, *, options: object, context: object) -> None:
        self.options = options
        self.context = context

    def on_insert(self, block_ids: object) -> None: ...

    def on_hit(self, block_ids: object) -> None: ...

    def on_free(self, block_ids: object) -> None: ...

    def on_evict(self, block_ids: object) -> None: ...

    def pick_victims(self, count: int) -> list[int]:
        return []


def build_entry(
    spec: PluginSpec | None = None,
    *,
    distribution: str = "vcore-engine",
    status: EntryStatus = EntryStatus.OK,
    reason: str = "",
    path: str | None = None,
    cause: BaseException | None = None,
    name: str = "lru",
    **fields: object,
) -> CatalogEntry:
    """An entry of the catalog; without a spec, one of an eviction policy called `name`."""
    if spec is None:
        values = {"name": name, "load": ListEviction, "api": "1.0", **fields}
        spec = EvictionPolicySpec(**values)  # type: ignore[arg-type]
    how = OriginKind.FILE if path else OriginKind.ENTRY_POINT
    return CatalogEntry(
        kind=spec.kind,
        name=spec.name,
        spec=spec,
        distribution=distribution,
        version=None if path else "1.0",
        status=status,
        reason=reason,
        origin=Origin(how=how, name=path or "points", path=path, sha256="ab" * 32 if path else None),
        cause=cause,
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's path, for `vcore.testing.distributions`; what is imported from it is forgotten after."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


@pytest.fixture
def write_plugin(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a one-file plugin and returns its path; every file has a name of its own."""

    def write(source: str) -> Path:
        path = tmp_path / f"mine_{next(_unique)}.py"
        path.write_text(source, encoding="utf-8")
        return path

    return write


@pytest.fixture
def make_entry() -> Callable[..., CatalogEntry]:
    """Makes an entry of the catalog; see `build_entry`."""
    return build_entry


@pytest.fixture
def list_eviction() -> type[EvictionPolicy]:
    """An eviction policy that keeps what it was created with."""
    return ListEviction
