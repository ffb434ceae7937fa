"""A catalog of a few plugins with options, one of which has secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from pydantic import SecretStr

from vcore.config import PluginOptions
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry, EntryStatus, Origin, OriginKind
from vcore.plugins.specs import EvictionPolicySpec, ObserverSpec, PluginSpec, WeightLoaderSpec


class Login(PluginOptions):
    user: str = "anyone"
    password: SecretStr | None = None


class TelemetryOptions(PluginOptions):
    """What the plugin `telemetry` takes."""

    url: str = "http://localhost"
    token: SecretStr = SecretStr("built-in-token")
    headers: dict[str, SecretStr] = {}
    keys: tuple[SecretStr, ...] = ()
    login: Login = Login()
    level: int = 1


class LRUOptions(PluginOptions):
    window: int = 4


def never_called(*, options: object, context: object) -> None:
    raise AssertionError("the configuration must create nothing")


def entry_of(
    spec: PluginSpec, distribution: str = "vcore-engine", status: EntryStatus = EntryStatus.OK
) -> CatalogEntry:
    return CatalogEntry(
        kind=spec.kind,
        name=spec.name,
        spec=spec,
        distribution=distribution,
        version="1.0",
        status=status,
        reason="" if status is EntryStatus.OK else "for a test",
        origin=Origin(how=OriginKind.ENTRY_POINT, name=spec.name),
    )


SPECS: tuple[PluginSpec, ...] = (
    ObserverSpec(name="telemetry", load=never_called, api="1.0", options=TelemetryOptions),
    EvictionPolicySpec(name="lru", load=never_called, api="1.0", options=LRUOptions),
    EvictionPolicySpec(name="fifo", load=never_called, api="1.0"),
    WeightLoaderSpec(name="safetensors-files", load=never_called, api="1.0", formats=("safetensors",)),
)


@pytest.fixture
def make_catalog() -> Callable[[Sequence[CatalogEntry]], Catalog]:
    """A catalog of the plugins above and of others."""

    def make(more: Sequence[CatalogEntry] = ()) -> Catalog:
        return Catalog([*(entry_of(spec) for spec in SPECS), *more])

    return make


@pytest.fixture
def catalog(make_catalog: Callable[[Sequence[CatalogEntry]], Catalog]) -> Catalog:
    return make_catalog(())


@pytest.fixture
def telemetry_options() -> type[PluginOptions]:
    return TelemetryOptions


@pytest.fixture
def make_entry() -> Callable[..., CatalogEntry]:
    return entry_of
