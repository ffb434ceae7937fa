"""Why a plugin is or is not selected, in sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vcore.config import EngineConfig
from vcore.plugins import (
    Catalog,
    CatalogEntry,
    EntryStatus,
    ExecutorSpec,
    LogitsProcessorSpec,
    ModelSpec,
    ObserverSpec,
    WeightLoaderSpec,
)
from vcore.plugins.explanation import explain

MakeEntry = Callable[..., CatalogEntry]


def tree(**sections: Any) -> EngineConfig:
    return EngineConfig.model_validate(sections)


def said(entry: CatalogEntry, catalog: Catalog, config: EngineConfig) -> tuple[bool | None, str]:
    explanation = explain(entry, catalog, config)
    return explanation.selected, "\n".join(explanation.sentences)


def test_where_it_came_from_and_that_it_cannot_be_used(make_entry: MakeEntry) -> None:
    entry = make_entry(status=EntryStatus.BROKEN, reason="no hooks")
    selected, text = said(entry, Catalog([entry]), tree())
    assert selected is False
    assert "it came in by entry point points, of vcore-engine 1.0" in text
    assert "it cannot be selected, being broken: no hooks" in text


@pytest.mark.parametrize(
    ("choice", "selected", "sentence"),
    [
        ("lru", True, "`cache.eviction: lru` selects it"),
        ("fifo", False, "`cache.eviction: fifo` selects eviction_policy/fifo@vcore-engine instead"),
        ("none", False, "`cache.eviction: none` selects nothing: there is no eviction_policy called 'none'"),
        ("auto", True, "its rank, 1, comes first (eviction_policy/lru@vcore-engine 1, eviction_policy/fifo"),
    ],
)
def test_a_choice_by_name(make_entry: MakeEntry, choice: str, selected: bool, sentence: str) -> None:
    entry = make_entry(rank=1)
    catalog = Catalog([entry, make_entry(name="fifo")])
    found, text = said(entry, catalog, tree(cache={"eviction": choice}))
    assert found is selected
    assert sentence in text


def test_auto_takes_another_or_none(make_entry: MakeEntry) -> None:
    low, high = make_entry(), make_entry(name="fifo", rank=1)
    assert said(low, Catalog([low, high]), tree())[0] is False
    tied = make_entry(name="fifo")
    selected, text = said(low, Catalog([low, tied]), tree())
    assert selected is None
    assert "`cache.eviction: auto` fails: several plugins" in text
    stranger = make_entry(distribution="acme", name="new")
    assert "plugins.prefer: [acme]" in said(stranger, Catalog([low, stranger]), tree())[1]


def test_what_depends_on_the_device_is_left_open(make_entry: MakeEntry) -> None:
    entries = [
        make_entry(ExecutorSpec(name=name, load="a:B", api="1.0", rank=rank)) for name, rank in (("x", 1), ("y", 0))
    ]
    catalog = Catalog(entries)
    assert said(entries[0], catalog, tree())[0] is None
    selected, text = said(entries[1], catalog, tree())
    assert selected is None
    assert "only where those before it cannot do the job" in text


def test_models_go_by_what_they_serve(make_entry: MakeEntry) -> None:
    entries = [
        make_entry(ModelSpec(name="m", load="a:B", api="1.0", architectures=("A", "B")), distribution=distribution)
        for distribution in ("vcore-engine", "acme")
    ]
    catalog = Catalog(entries)
    selected, text = said(entries[0], catalog, tree())
    assert selected is None
    assert "architectures: 'A' is served by it" in text
    selected, text = said(entries[1], catalog, tree())
    assert selected is False
    assert "'B' is served by model/m@vcore-engine instead" in text


def test_models_that_clash(make_entry: MakeEntry) -> None:
    spec = ModelSpec(name="m", load="a:B", api="1.0", architectures=("A",))
    entries = [make_entry(spec, distribution=distribution) for distribution in ("acme", "bold")]
    assert "'A' is served by nobody: several plugins" in said(entries[0], Catalog(entries), tree())[1]


def test_a_loader_is_selected_by_format(make_entry: MakeEntry) -> None:
    entry = make_entry(WeightLoaderSpec(name="w", load="a:B", api="1.0", formats=("gguf",)))
    selected, text = said(entry, Catalog([entry]), tree(model={"load_format": "gguf"}))
    assert selected is True
    assert "`model.load_format: gguf` selects it" in text


def test_observers_and_processors(make_entry: MakeEntry) -> None:
    observer = make_entry(ObserverSpec(name="o", load="a:B", api="1.0"))
    catalog = Catalog([observer])
    assert said(observer, catalog, tree())[0] is False
    assert said(observer, catalog, tree(observability={"observers": ["o"]}))[0] is True
    processor = make_entry(LogitsProcessorSpec(name="p", load="a:B", api="1.0"))
    selected, text = said(processor, Catalog([processor]), tree())
    assert selected is None
    assert "a request selects it, by its name" in text


def test_a_plugin_for_any_architecture_is_taken_only_by_name(make_entry: MakeEntry) -> None:
    spec = ModelSpec(name="anything", load="acme:Any", api="1.0", architectures=("*",))
    entry = make_entry(spec)
    catalog = Catalog([entry])
    assert said(entry, catalog, tree()) == (
        False,
        "it came in by entry point points, of vcore-engine 1.0\n"
        "it serves whatever `model.plugin` or `model.fallback` gives it, and nothing unasked",
    )
    selected, text = said(entry, catalog, tree(model={"fallback": "anything"}))
    assert selected is None
    assert "`model.fallback` takes it where nothing serves the architecture" in text
    assert said(entry, catalog, tree(model={"fallback": "another"}))[0] is False
    assert said(entry, catalog, tree(model={"plugin": "anything"}))[0] is True
