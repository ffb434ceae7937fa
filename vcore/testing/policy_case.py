"""`PolicyCase`: which policy a test class is about, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vcore.config import PluginsConfig
from vcore.plugins import Catalog, CatalogEntry, PluginKind, discover

__all__ = ["PolicyCase"]


class PolicyCase:
    """What a case states; the tests are in the contracts of the kinds of policy."""

    kind: ClassVar[PluginKind]
    """Of the contract."""
    policy: ClassVar[str]
    """The name, as users write it: ``"NAME"`` or ``"NAME@DISTRIBUTION"``."""
    plugins: ClassVar[Sequence[object]] = ()
    """Where it is registered, if it is not installed, or to test it as it stands in the folder: modules with hooks,
    specs, or files as `pathlib.Path`. Then no installed plugin is looked at but vcore's own."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Its options in all tests."""
    tight_options: ClassVar[Mapping[str, Any]] = {}
    """Options beside those for tests that look for limits: so tight that short random lives come up against each."""

    @pytest.fixture(scope="class")
    @classmethod
    def catalog(cls) -> Catalog:
        """What is installed, or the case's own plugins."""
        files = tuple(str(one) for one in cls.plugins if isinstance(one, Path))
        objects = [one for one in cls.plugins if not isinstance(one, Path)]
        return discover(PluginsConfig(load=files, allow=() if cls.plugins else None), objects=objects)

    @pytest.fixture(scope="class")
    @classmethod
    def entry(cls, catalog: Catalog) -> CatalogEntry:
        """The policy, found as an engine finds it."""
        return catalog.find(cls.kind, cls.policy)

    @pytest.fixture(scope="class")
    @classmethod
    def create(cls, catalog: Catalog, entry: CatalogEntry) -> Callable[..., Any]:
        """Makes the policy as the core does, of a context; keywords are options beside those of the case."""

        def make(context: object, **options: Any) -> Any:
            return catalog.create(entry, options={**cls.options, **options}, context=context)

        return make

    def test_the_plugin_is_found_and_its_code_loads(self, catalog: Catalog, entry: CatalogEntry) -> None:
        """As by ``vcore plugins check``."""
        catalog.check(entry)
        assert entry.spec is not None
        assert entry.spec.summary, "say in `summary` what it does, for `vcore plugins list`"

    def test_its_options_fit(self, catalog: Catalog, entry: CatalogEntry) -> None:
        """Those of the case, and none at all."""
        for options in ({}, self.options, {**self.options, **self.tight_options}):
            catalog.parse_options(entry, options)
