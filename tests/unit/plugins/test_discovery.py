"""Discovery as a whole: the three ways in, what the configuration forbids, and the final status of each."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vcore.config import PluginsConfig
from vcore.errors import ConfigError, PluginBrokenError, PluginConflictError
from vcore.plugins import Catalog, CatalogEntry, EvictionPolicySpec, PluginKind, discover, hookimpl
from vcore.testing.distributions import write_distribution

Write = Callable[[str], Path]
KIND = PluginKind.EVICTION_POLICY

PLUGIN = """
from vcore.interfaces.eviction import EvictionPolicy
from vcore.plugins import EvictionPolicySpec, hookimpl

class MRU(EvictionPolicy):
    def __init__(self, *, options, context):
        pass
    def on_insert(self, block_ids): ...
    def on_hit(self, block_ids): ...
    def on_free(self, block_ids): ...
    def on_evict(self, block_ids): ...
    def pick_victims(self, count):
        return []

@hookimpl
def vcore_eviction_policies():
    return [EvictionPolicySpec(name="mru", load={load}, api={api!r}, requires={requires!r})]
"""


def plugin(load: str = "MRU", api: str = "1.0", requires: tuple[str, ...] = ()) -> str:
    return PLUGIN.format(load=load, api=api, requires=requires)


def of(catalog: Catalog, distribution: str) -> list[CatalogEntry]:
    return [entry for entry in catalog.entries if entry.distribution == distribution]


def only(catalog: Catalog, distribution: str) -> CatalogEntry:
    [entry] = of(catalog, distribution)
    return entry


@pytest.fixture
def acme(site: Path) -> None:
    """A distribution `acme` with an eviction policy `mru`."""
    modules = {"acme_pkg/plugin.py": plugin()}
    write_distribution(site, "acme", version="2.0", entry_points={"policies": "acme_pkg.plugin"}, modules=modules)


class TestInstalled:
    @pytest.mark.usefixtures("acme")
    def test_it_is_found_and_works(self) -> None:
        catalog = discover(PluginsConfig())
        entry = catalog.find(KIND, "mru")
        assert (entry.distribution, entry.version, str(entry.origin)) == ("acme", "2.0", "entry point policies")
        assert type(catalog.create(entry, context=None)).__name__ == "MRU"

    @pytest.mark.usefixtures("acme")
    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ({"allow": ["vcore-engine"]}, "plugins.allow does not list the distribution 'acme'"),
            ({"disable": ["Acme"]}, "plugins.disable lists the distribution 'Acme'"),
            ({"disable": ["policies"]}, "plugins.disable lists the entry point 'policies'"),
            ({"disable": ["policies@acme"]}, "plugins.disable lists the entry point 'policies@acme'"),
        ],
    )
    def test_what_is_forbidden_is_not_even_imported(self, config: dict[str, Any], reason: str) -> None:
        entry = only(discover(PluginsConfig(**config)), "acme")
        assert (entry.kind, entry.name, entry.status) == (None, "policies", "disabled")
        assert entry.reason.startswith(reason)
        assert "acme_pkg" not in sys.modules

    @pytest.mark.usefixtures("acme")
    @pytest.mark.parametrize("config", [{"allow": ["ACME"]}, {"disable": ["policies@other"]}])
    def test_what_is_not_forbidden_is(self, config: dict[str, Any]) -> None:
        assert only(discover(PluginsConfig(**config)), "acme").ok

    def test_the_core_is_always_allowed_but_may_be_disabled(self) -> None:
        assert any(entry.ok for entry in of(discover(PluginsConfig(allow=())), "vcore-engine"))
        disabled = of(discover(PluginsConfig(disable=("executor",))), "vcore-engine")
        assert [entry.name for entry in disabled if entry.status == "disabled"] == ["executor"]

    @pytest.mark.usefixtures("acme")
    @pytest.mark.parametrize("address", ["eviction_policy/mru", "eviction_policy/mru@acme"])
    def test_a_plugin_is_hidden_by_its_address(self, address: str) -> None:
        catalog = discover(PluginsConfig(disable=(address,)))
        assert only(catalog, "acme").status == "hidden"
        with pytest.raises(PluginBrokenError, match=r"is hidden: plugins\.disable hides 'eviction_policy/mru'"):
            catalog.find(KIND, "mru")

    def test_requires_dist_that_excludes_us_prevents_the_import(self, site: Path) -> None:
        write_distribution(
            site, "acme", entry_points={"policies": "acme_pkg"}, modules={"acme_pkg.py": plugin()},
            requires=["vcore-engine>=99"],
        )  # fmt: skip
        entry = only(discover(PluginsConfig()), "acme")
        assert entry.status == "incompatible"
        assert "requires vcore-engine>=99" in entry.reason
        assert "acme_pkg" not in sys.modules

    def test_unreadable_metadata_is_one_line(self, site: Path) -> None:
        write_distribution(site, "acme", entry_points={"x": "acme"})
        (site / "acme-1.0.dist-info" / "METADATA").write_text("", encoding="utf-8")
        [entry] = [entry for entry in discover(PluginsConfig()).entries if "metadata" in entry.reason]
        assert entry.status == "broken"
        assert "states no Name" in entry.reason


class TestFilesAndModules:
    @pytest.mark.parametrize("load", ["MRU", "':MRU'", "f'{__name__}:MRU'"])
    def test_a_file_relative_to_the_base_folder(self, write_plugin: Write, load: str) -> None:
        path = write_plugin(plugin(load))
        catalog = discover(PluginsConfig(load=(f"./{path.name}",)), base_dir=path.parent)
        entry = catalog.find(KIND, "mru")
        assert (entry.distribution, entry.version, entry.origin.path) == (path.name, None, str(path))
        assert entry.origin.sha256 is not None
        assert entry.origin.sha256[:12] in str(entry.origin)
        assert type(catalog.create(entry, context=None)).__name__ == "MRU"

    def test_a_file_may_call_itself_by_its_own_name(self, write_plugin: Write) -> None:
        path = write_plugin("")
        path.write_text(plugin(f"'{path.stem}:MRU'"), encoding="utf-8")
        catalog = discover(PluginsConfig(load=(str(path),)))
        catalog.check(catalog.find(KIND, "mru"))

    def test_a_file_is_loaded_once(self, write_plugin: Write) -> None:
        path = write_plugin(plugin())
        config = PluginsConfig(load=(f"./{path.name}", str(path)))
        catalog = discover(config, base_dir=path.parent)
        again = discover(config, base_dir=path.parent)
        assert only(catalog, path.name).spec == only(again, path.name).spec

    def test_a_changed_file_is_another_plugin(self, write_plugin: Write) -> None:
        path = write_plugin(plugin())
        first = only(discover(PluginsConfig(load=(str(path),))), path.name)
        path.write_text(plugin().replace("mru", "lifo"), encoding="utf-8")
        second = only(discover(PluginsConfig(load=(str(path),))), path.name)
        assert (first.name, second.name) == ("mru", "lifo")
        assert first.origin.sha256 != second.origin.sha256

    def test_a_module(self, site: Path) -> None:
        (site / "acme_loose.py").write_text(plugin("'acme_loose:MRU'"), encoding="utf-8")
        catalog = discover(PluginsConfig(load=("acme_loose",)))
        entry = only(catalog, "acme_loose")
        assert entry.origin.path == str(site / "acme_loose.py")
        catalog.check(entry)
        assert catalog.find(KIND, "mru@acme_loose") is entry

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("./absent.py", "expected a Python file at .*absent.py, found nothing"),
            ("~no-such-user/absent.py", "expected a Python file at .*absent.py, found nothing"),
            (f"./{'a' * 5000}.py", "expected a Python file at .*, found nothing"),
            ("./", "found a folder"),
            ("acme_absent", "no module 'acme_absent' can be imported; .* or a file, as './acme_absent.py'"),
            ("json.nope.deeper", "no module 'json.nope.deeper'"),
        ],
    )
    def test_what_is_not_there_is_an_error_at_once(self, written: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=message):
            discover(PluginsConfig(load=(written,)), base_dir=tmp_path)

    def test_a_module_whose_package_raises_is_broken(self, site: Path) -> None:
        (site / "acme_bad").mkdir()
        (site / "acme_bad" / "__init__.py").write_text("raise RuntimeError('boom')", encoding="utf-8")
        entry = only(discover(PluginsConfig(load=("acme_bad.plugin",))), "acme_bad.plugin")
        assert "RuntimeError: boom" in entry.reason

    def test_a_broken_file_is_forgotten_and_fatal(self, write_plugin: Write) -> None:
        path = write_plugin("import acme_absent")
        catalog = discover(PluginsConfig(load=(str(path),)))
        entry = only(catalog, path.name)
        assert entry.status == "broken"
        assert entry.origin.module not in sys.modules
        with pytest.raises(PluginBrokenError, match="acme_absent") as caught:
            catalog.require()
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)


class TestObjects:
    def test_specs_and_namespaces(self, list_eviction: type) -> None:
        spec = EvictionPolicySpec(name="one", load=list_eviction, api="1.0")
        two = EvictionPolicySpec(name="two", load=list_eviction, api="1.0")
        namespace = SimpleNamespace(vcore_eviction_policies=hookimpl(_returning(two)))
        catalog = discover(PluginsConfig(), objects=[spec, namespace])
        assert [entry.name for entry in of(catalog, "object")] == ["one", "two"]
        assert isinstance(catalog.create(catalog.find(KIND, "two"), context=None), list_eviction)

    def test_a_wrong_object_is_fatal(self) -> None:
        catalog = discover(PluginsConfig(), objects=[object()])
        with pytest.raises(PluginBrokenError, match="plugin object object of object: is broken: it implements no hook"):
            catalog.require()

    @pytest.mark.parametrize("text", ["./mine.py", Path("mine.py")])
    def test_a_path_is_no_object(self, text: object) -> None:
        with pytest.raises(ConfigError, match=r'mine\.py.*expected an object: .*"load"'):
            discover(PluginsConfig(), objects=[text])


def _returning(spec: EvictionPolicySpec) -> Callable[[], object]:
    def hook() -> object:
        return [spec]

    return hook


class TestStatus:
    def entry(self, source: str, write_plugin: Write) -> CatalogEntry:
        path = write_plugin(source)
        return only(discover(PluginsConfig(load=(str(path),))), path.name)

    def test_another_contract_version(self, write_plugin: Write) -> None:
        entry = self.entry(plugin(api="9.0"), write_plugin)
        assert entry.status == "incompatible"
        assert "upgrade vcore-engine" in entry.reason

    def test_a_missing_requirement(self, write_plugin: Write) -> None:
        entry = self.entry(plugin(requires=("acme-absent>=1",)), write_plugin)
        assert entry.status == "missing_requirement"
        assert "acme-absent>=1, which is not installed" in entry.reason

    def test_a_spec_with_slips(self, write_plugin: Write) -> None:
        entry = self.entry(plugin(api="one"), write_plugin)
        assert (entry.status, entry.name, entry.kind) == ("broken", "mru", KIND)
        assert "MAJOR.MINOR" in entry.reason

    def test_a_duplicate_in_one_distribution(self, list_eviction: type, site: Path) -> None:
        modules = {"acme_a.py": plugin(), "acme_b.py": plugin()}
        write_distribution(site, "acme", entry_points={"a": "acme_a", "b": "acme_b"}, modules=modules)
        catalog = discover(PluginsConfig())
        assert [entry.status for entry in of(catalog, "acme")] == ["duplicate", "duplicate"]
        with pytest.raises(PluginBrokenError, match=r"eviction_policy/mru 2 times \(entry point a, entry point b\)"):
            catalog.find(KIND, "mru")

    @pytest.mark.usefixtures("acme")
    def test_the_same_name_in_two_distributions_is_judged_when_selected(self, write_plugin: Write) -> None:
        path = write_plugin(plugin())
        catalog = discover(PluginsConfig(load=(str(path),)))
        assert only(catalog, "acme").ok
        assert only(catalog, path.name).ok
        with pytest.raises(PluginConflictError, match=f"cache.eviction: mru@{path.name}"):
            catalog.find(KIND, "mru")
        assert catalog.find(KIND, "mru@acme").distribution == "acme"

    def test_output_and_slowness_are_notes(self, write_plugin: Write, caplog: pytest.LogCaptureFixture) -> None:
        source = "import time; real = time.perf_counter; time.perf_counter = lambda: real() + 9\nprint('hi')\n"
        path = write_plugin(source + plugin())
        original = sys.modules["time"].perf_counter
        try:
            with caplog.at_level(logging.DEBUG, logger="vcore.plugins"):
                entry = only(discover(PluginsConfig(load=(str(path),))), path.name)
        finally:
            sys.modules["time"].perf_counter = original  # type: ignore[attr-defined]
        assert entry.ok
        assert entry.notes == ("importing its registration module took 9.0 s", "it wrote 3 characters at import: 'hi'")
        assert "took 9.0 s to import; `plugins.disable` keeps it from being imported" in caplog.text
        assert "wrote: hi" in caplog.text


class TestUnmatchedRules:
    @pytest.mark.usefixtures("acme")
    @pytest.mark.parametrize(
        ("config", "warning"),
        [
            ({"allow": ["acne"]}, "no plugin of a distribution 'acne' is installed; did you mean 'acme'?"),
            ({"prefer": ["acne"]}, "plugins.prefer: no plugin of a distribution 'acne'"),
            ({"disable": ["polices"]}, "'polices' is neither a distribution nor an entry point with plugins; did you"),
            ({"disable": ["mru"]}, "'mru' is neither .* to hide a plugin write 'eviction_policy/mru'"),
            ({"disable": ["eviction_policy/mruu"]}, "there is no eviction_policy 'mruu' to hide; did you mean 'mru'?"),
        ],
    )  # fmt: skip
    def test_a_rule_that_matches_nothing_is_told(
        self, config: dict[str, Any], warning: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        discover(PluginsConfig(**config))
        [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert all(part in record.getMessage() for part in warning.split(" .* "))

    def test_a_kind_that_does_not_exist_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'model'"):
            discover(PluginsConfig(disable=("modle/llama",)))

    @pytest.mark.usefixtures("acme")
    def test_rules_that_match_are_silent(self, caplog: pytest.LogCaptureFixture) -> None:
        discover(PluginsConfig(allow=("acme",), prefer=("acme",), disable=("executor", "eviction_policy/mru")))
        assert not [record for record in caplog.records if record.levelno == logging.WARNING]
