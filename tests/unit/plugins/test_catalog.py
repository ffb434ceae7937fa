"""How one plugin of several is chosen, and what is said when none can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from vcore.errors import ConfigError, PluginBrokenError, PluginConflictError, PluginNotFoundError
from vcore.plugins import (
    Catalog,
    CatalogEntry,
    EntryStatus,
    LogitsProcessorSpec,
    ModelSourceSpec,
    ModelSpec,
    Origin,
    PluginKind,
    WeightLoaderSpec,
)
from vcore.plugins.entry import OriginKind

MakeEntry = Callable[..., CatalogEntry]
KIND = PluginKind.EVICTION_POLICY


def unread(name: str = "lru", *, kind: PluginKind | None = None) -> CatalogEntry:
    """A registration that failed before naming its plugins."""
    return CatalogEntry(
        kind=kind,
        name=name,
        spec=None,
        distribution="acme",
        version="2.0",
        status=EntryStatus.BROKEN,
        reason="importing it failed: ImportError: no",
        origin=Origin(how=OriginKind.ENTRY_POINT, name=name),
        cause=ImportError("no"),
    )


def model(name: str, *architectures: str, **fields: object) -> ModelSpec:
    return ModelSpec(name=name, load="acme:M", api="1.0", architectures=architectures, **fields)  # type: ignore[arg-type]


class TestFind:
    def test_by_name_and_by_address(self, make_entry: MakeEntry) -> None:
        entry = make_entry(distribution="acme_lru")
        catalog = Catalog([entry])
        assert catalog.find(KIND, "lru") is entry
        assert catalog.find("eviction_policy", "lru@Acme.LRU") is entry
        assert entry.address == "eviction_policy/lru@acme_lru"

    def test_another_kind_of_that_name_is_another_plugin(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginNotFoundError):
            Catalog([make_entry()]).find(PluginKind.SCHEDULING_POLICY, "lru")

    def test_an_unknown_name_lists_close_matches_and_what_there_is(self, make_entry: MakeEntry) -> None:
        catalog = Catalog([make_entry(), make_entry(name="fifo"), unread("other")])
        with pytest.raises(PluginNotFoundError) as caught:
            catalog.find(KIND, "lruu")
        message = str(caught.value)
        assert "there is no eviction_policy called 'lruu'; did you mean 'lru'?; installed: fifo, lru" in message
        assert "plugin entry point other of acme 2.0: broken: importing it failed" in message

    def test_a_clash_names_both_distributions_and_the_key_to_write(self, make_entry: MakeEntry) -> None:
        catalog = Catalog([make_entry(), make_entry(distribution="acme")])
        with pytest.raises(PluginConflictError) as caught:
            catalog.find(KIND, "lru")
        message = str(caught.value)
        assert "'lru' of vcore-engine 1.0 and 'lru' of acme 1.0" in message
        assert "`cache.eviction: lru@vcore-engine` or `cache.eviction: lru@acme`" in message

    def test_files_that_clash_are_told_apart_by_path(self, make_entry: MakeEntry) -> None:
        entries = [replace(make_entry(path=f"/{one}/mine.py"), distribution="mine.py") for one in "ab"]
        catalog = Catalog(entries)
        with pytest.raises(PluginConflictError, match=r"lru@/a/mine\.py` or `cache\.eviction: lru@/b/mine\.py"):
            catalog.find(KIND, "lru")
        assert catalog.find(KIND, "lru@/b/mine.py") is entries[1]

    def test_a_clash_of_a_kind_without_key_says_what_to_hide(self, make_entry: MakeEntry) -> None:
        processor = LogitsProcessorSpec(name="quiet", load="acme:P", api="1.0")
        catalog = Catalog([make_entry(processor, distribution=one) for one in ("acme", "bold")])
        with pytest.raises(PluginConflictError, match=r"plugins\.disable: 'logits_processor/quiet@acme' or"):
            catalog.find(PluginKind.LOGITS_PROCESSOR, "quiet")

    def test_a_clash_with_what_cannot_be_used_is_none(self, make_entry: MakeEntry) -> None:
        entry = make_entry()
        hidden = make_entry(distribution="acme", status=EntryStatus.HIDDEN, reason="hidden")
        assert Catalog([hidden, entry]).find(KIND, "lru") is entry

    def test_selected_and_broken_is_fatal_with_the_cause_chained(self, make_entry: MakeEntry) -> None:
        cause = ImportError("no")
        entry = make_entry(distribution="acme", status=EntryStatus.BROKEN, reason="it is wrong", cause=cause)
        with pytest.raises(PluginBrokenError) as caught:
            Catalog([entry]).find(KIND, "lru")
        assert caught.value.__cause__ is cause
        message = str(caught.value)
        assert "eviction_policy 'lru' of acme 1.0 (entry point points): is broken: it is wrong" in message
        assert "upgrade or uninstall acme" in message

    @pytest.mark.parametrize("kind", [None, KIND])
    def test_an_entry_point_of_that_name_that_failed_is_what_was_meant(self, kind: PluginKind | None) -> None:
        with pytest.raises(PluginBrokenError, match=r"entry point lru of acme 2\.0: is broken") as caught:
            Catalog([unread(kind=kind)]).find(KIND, "lru")
        assert isinstance(caught.value.__cause__, ImportError)

    def test_the_remedy_is_by_origin(self, make_entry: MakeEntry) -> None:
        broken = {"status": EntryStatus.BROKEN, "reason": "no"}
        with pytest.raises(PluginBrokenError, match=r"mend /a/mine\.py"):
            Catalog([make_entry(path="/a/mine.py", **broken)]).find(KIND, "lru")
        with pytest.raises(PluginBrokenError, match="pip install --force-reinstall --no-deps vcore-engine"):
            Catalog([make_entry(**broken)]).find(KIND, "lru")
        with pytest.raises(PluginBrokenError, match="change that, or select another plugin"):
            Catalog([make_entry(status=EntryStatus.HIDDEN)]).find(KIND, "lru")
        with pytest.raises(PluginBrokenError, match="do not pass it"):
            Catalog([replace(make_entry(distribution="object", **broken), version=None)]).find(KIND, "lru")

    @pytest.mark.parametrize("address", ["", "@acme", "lru@"])
    def test_a_malformed_address_finds_nothing(self, address: str) -> None:
        with pytest.raises(PluginNotFoundError, match="expected NAME or NAME@DISTRIBUTION"):
            Catalog([]).find(KIND, address)

    def test_an_unknown_kind(self) -> None:
        with pytest.raises(ConfigError, match="no kind of plugin 'modle'; did you mean 'model'"):
            Catalog([]).find("modle", "x")


class TestFindByKey:
    def test_whoever_serves_it(self, make_entry: MakeEntry) -> None:
        entry = make_entry(model("m", "A", "B"), distribution="acme")
        catalog = Catalog([make_entry(model("n", "C")), entry])
        assert catalog.find_by_key(PluginKind.MODEL, "B") is entry

    def test_the_core_comes_first_whatever_the_rank(self, make_entry: MakeEntry) -> None:
        core, other = make_entry(model("m", "A")), make_entry(model("m", "A", rank=9), distribution="acme")
        assert Catalog([other, core]).find_by_key(PluginKind.MODEL, "A") is core
        assert Catalog([other, core], prefer=["acme"]).find_by_key(PluginKind.MODEL, "A") is core
        assert Catalog([other, core]).find_by_key(PluginKind.MODEL, "A@acme") is other

    def test_then_the_first_preferred(self, make_entry: MakeEntry) -> None:
        entries = [make_entry(model("m", "A"), distribution=one) for one in ("acme", "bold", "cute")]
        assert Catalog(entries, prefer=["bold", "acme"]).find_by_key(PluginKind.MODEL, "A") is entries[1]

    def test_otherwise_a_clash(self, make_entry: MakeEntry) -> None:
        entries = [make_entry(model(one, "A"), distribution=one) for one in ("acme", "bold")]
        with pytest.raises(PluginConflictError, match=r"`model\.plugin: acme@acme` or `model\.plugin: bold@bold`"):
            Catalog(entries).find_by_key(PluginKind.MODEL, "A")

    def test_a_loader_is_addressed_by_its_format(self, make_entry: MakeEntry) -> None:
        specs = [WeightLoaderSpec(name=one, load="a:B", api="1.0", formats=("gguf",)) for one in ("p", "q")]
        entries = [make_entry(spec, distribution=f"acme-{spec.name}") for spec in specs]
        with pytest.raises(PluginConflictError, match=r"`model\.load_format: gguf@acme-p`"):
            Catalog(entries).find_by_key(PluginKind.WEIGHT_LOADER, "gguf")

    def test_within_one_distribution_the_rank_decides(self, make_entry: MakeEntry) -> None:
        low, high = make_entry(model("low", "A")), make_entry(model("high", "A", rank=1))
        assert Catalog([low, high]).find_by_key(PluginKind.MODEL, "A") is high
        with pytest.raises(PluginConflictError, match="low@vcore-engine"):
            Catalog([low, make_entry(model("same", "A"))]).find_by_key(PluginKind.MODEL, "A")

    def test_one_field_only(self, make_entry: MakeEntry) -> None:
        spec = ModelSourceSpec(name="s", load="a:B", api="1.0", schemes=("hf",), models=("tiny",))
        catalog = Catalog([make_entry(spec)])
        assert catalog.find_by_key(PluginKind.MODEL_SOURCE, "tiny").name == "s"
        with pytest.raises(PluginNotFoundError, match="installed: hf"):
            catalog.find_by_key(PluginKind.MODEL_SOURCE, "tiny", field="schemes")

    def test_kinds_without_keys_go_by_name(self, make_entry: MakeEntry) -> None:
        entry = make_entry()
        assert Catalog([entry]).find_by_key(KIND, "lru") is entry

    def test_served_only_by_what_is_broken(self, make_entry: MakeEntry) -> None:
        entry = make_entry(model("m", "A"), status=EntryStatus.MISSING_REQUIREMENT, reason="it requires triton")
        with pytest.raises(PluginBrokenError, match="missing_requirement: it requires triton"):
            Catalog([entry]).find_by_key(PluginKind.MODEL, "A")

    def test_served_by_nobody(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginNotFoundError, match="that serves 'Llame'; did you mean 'Llama'"):
            Catalog([make_entry(model("m", "Llama"))]).find_by_key(PluginKind.MODEL, "Llame")


class TestAuto:
    def test_installing_a_package_changes_nothing(self, make_entry: MakeEntry) -> None:
        core, other = make_entry(), make_entry(distribution="acme", name="better", rank=9)
        catalog = Catalog([other, core])
        assert catalog.candidates(KIND) == [core]
        assert catalog.best(KIND) is core
        [(rejected, reason)] = catalog.rejected(KIND)
        assert rejected is other
        assert "write `plugins.prefer: [acme]`" in reason

    def test_rank_decides_among_those_considered(self, make_entry: MakeEntry) -> None:
        core, other = make_entry(rank=1), make_entry(distribution="acme", name="better", rank=2)
        catalog = Catalog([core, other], prefer=["Acme"])
        assert catalog.candidates(KIND) == [other, core]
        assert catalog.best(KIND) is other
        assert catalog.best(KIND, among=[core]) is core

    def test_of_equal_rank_the_preferred_wins_the_earlier_first(self, make_entry: MakeEntry) -> None:
        core, acme, bold = make_entry(), make_entry(distribution="acme"), make_entry(distribution="bold")
        assert Catalog([core, acme, bold], prefer=["bold", "acme"]).candidates(KIND) == [bold, acme, core]

    def test_a_tie_within_a_distribution_is_an_error(self, make_entry: MakeEntry) -> None:
        catalog = Catalog([make_entry(), make_entry(name="fifo")])
        with pytest.raises(PluginConflictError) as caught:
            catalog.best(KIND)
        assert "tie for `auto` by rank: 'lru' of vcore-engine 1.0 and 'fifo'" in str(caught.value)
        assert "`cache.eviction: lru@vcore-engine` or `cache.eviction: fifo@vcore-engine`" in str(caught.value)

    def test_nothing_to_take_says_why(self, make_entry: MakeEntry) -> None:
        broken = make_entry(status=EntryStatus.INCOMPATIBLE, reason="too new")
        with pytest.raises(PluginNotFoundError, match="lru@vcore-engine: incompatible: too new"):
            Catalog([broken]).best(KIND)
        with pytest.raises(PluginNotFoundError, match="none is installed"):
            Catalog([]).best(KIND)

    def test_an_object_is_never_taken_by_auto(self, make_entry: MakeEntry) -> None:
        origin = Origin(how=OriginKind.OBJECT, name="Mine")
        entry = replace(make_entry(distribution="object"), origin=origin)
        catalog = Catalog([entry], prefer=["object"])
        assert catalog.candidates(KIND) == []
        assert catalog.rejected(KIND)[0][1].endswith("select it by name")


class TestRequire:
    def test_met(self, make_entry: MakeEntry) -> None:
        entries = [make_entry(), make_entry(distribution="acme", name="mru")]
        Catalog(entries, require=["acme", "eviction_policy/lru", "eviction_policy/mru@acme"]).require()

    def test_a_distribution_that_is_not_there(self, make_entry: MakeEntry) -> None:
        with pytest.raises(PluginNotFoundError, match=r"did you mean 'acme'\?; `pip install acne`"):
            Catalog([make_entry(distribution="acme")], require=["acne"]).require()

    def test_a_distribution_with_something_broken(self, make_entry: MakeEntry) -> None:
        entries = [make_entry(distribution="acme"), unread()]
        with pytest.raises(PluginBrokenError, match=r"entry point lru of acme 2\.0") as caught:
            Catalog(entries, require=["acme"]).require()
        assert isinstance(caught.value.__cause__, ImportError)

    def test_a_plugin_that_is_not_there(self) -> None:
        with pytest.raises(PluginNotFoundError, match="no eviction_policy called 'lru'"):
            Catalog([], require=["eviction_policy/lru"]).require()

    def test_what_was_loaded_by_hand_must_work(self, make_entry: MakeEntry) -> None:
        entry = make_entry(path="/a/mine.py", status=EntryStatus.BROKEN, reason="no hooks")
        with pytest.raises(PluginBrokenError, match="no hooks"):
            Catalog([entry]).require()
        Catalog([replace(entry, status=EntryStatus.HIDDEN)]).require()

    def test_what_is_installed_need_not(self) -> None:
        Catalog([unread()]).require()
