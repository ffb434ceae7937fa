"""`model.path`: a path, a short name, a scheme, or a name of a source's own form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vcore.config import PluginChoice, load_config
from vcore.engine.resolve import resolve
from vcore.engine.resolve.model_source import choose_source, short_names
from vcore.errors import ModelNotFoundError, PluginBrokenError, PluginConflictError, PluginNotFoundError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry, EntryStatus
from vcore.plugins.specs import ModelSourceSpec


def never(*, options: object, context: object) -> None: ...


def test_a_path_that_exists_comes_first(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-model").mkdir()
    chosen = choose_source("tiny-model", catalog)
    assert (chosen.entry.name, chosen.name, chosen.on_disk) == ("local", str(tmp_path / "tiny-model"), True)


def test_a_relative_path_is_looked_for_in_the_base_folder_first(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "conf" / "m", tmp_path / "m", tmp_path / "n"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert choose_source("m", catalog, tmp_path / "conf").name == str(tmp_path / "conf" / "m")
    assert choose_source("n", catalog, tmp_path / "conf").name == str(tmp_path / "n")


def test_names_are_fetched_by_who_supplies_them(catalog: Catalog, shelf: list[tuple[str, bool]]) -> None:
    for path in ("tiny-model", "shelf://anything", "owner/name"):
        resolve(load_config({"model.path": path, "model.offline": path == "owner/name"}), catalog)
    assert shelf == [("tiny-model", False), ("anything", False), ("owner/name", True)]


@pytest.mark.parametrize(
    "path", ["./tiny-model", "/no/such/folder", "~/no-such-model", "~no-such-user/x", "/" + "a" * 5000]
)
def test_what_can_only_be_a_path_must_exist(catalog: Catalog, path: str) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no file or folder"):
        choose_source(path, catalog)


def test_an_unknown_name_gets_the_short_names_and_the_forms(catalog: Catalog) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        choose_source("tiny-modle", catalog)
    message = str(caught.value)
    for fragment in (
        "found 'tiny-modle', which names no model",
        "did you mean 'tiny-model'",
        "a folder or file that exists",
        "a short name (other-model, tiny-model)",
        "SCHEME://NAME (file://, shelf://)",
        "shelf: [",
    ):
        assert fragment in message


def test_an_unknown_scheme_gets_those_that_are_served(catalog: Catalog) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"scheme 'shelv'; did you mean 'shelf'\?; there are file://, shelf://"
    ):
        choose_source("shelv://x", catalog)


def test_without_sources_the_message_still_helps(make_catalog: Callable[..., Catalog]) -> None:
    with pytest.raises(ModelNotFoundError, match="no source supplies any"):
        choose_source("x", make_catalog(without=("local", "shelf")))


def test_strangers_never_take_over_a_name(
    make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry]
) -> None:
    spec = ModelSourceSpec(
        name="greedy", load=never, api="1.0", rank=99, schemes=("shelf",), models=("tiny-model",), pattern=".*"
    )
    catalog = make_catalog(make_entry(spec, distribution="acme"))
    for path in ("tiny-model", "shelf://x", "owner/name"):
        assert choose_source(path, catalog).entry.name == "shelf"
    assert choose_source("anything else", catalog).entry.name == "greedy"


def test_two_strangers_are_a_conflict(
    make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry]
) -> None:
    entries = [
        make_entry(
            ModelSourceSpec(name=name, load=never, api="1.0", schemes=(name,), pattern=r"\d+"), distribution=name
        )
        for name in ("acme", "umbrella")
    ]
    with pytest.raises(PluginConflictError, match="write acme://123 or umbrella://123"):
        choose_source("123", make_catalog(*entries))


def test_a_broken_source_is_fatal_only_when_it_is_selected(
    make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry], tmp_path: Path
) -> None:
    spec = ModelSourceSpec(name="odd", load=never, api="1.0", schemes=("odd",), models=("odd-model",), pattern="o+")
    catalog = make_catalog(make_entry(spec, status=EntryStatus.BROKEN))
    assert short_names(catalog) == ["other-model", "tiny-model"]
    assert choose_source(str(tmp_path), catalog).on_disk
    with pytest.raises(PluginBrokenError, match="broken for a test"):
        choose_source("odd://x", catalog)
    with pytest.raises(ModelNotFoundError):
        choose_source("ooo", catalog)


def test_a_path_needs_a_source_for_files(make_catalog: Callable[..., Catalog], tmp_path: Path) -> None:
    with pytest.raises(PluginNotFoundError, match="file"):
        choose_source(str(tmp_path), make_catalog(without=("local",)))


def test_a_named_source_is_taken_whatever_the_name_looks_like(catalog: Catalog) -> None:
    choice = PluginChoice(name="shelf")
    assert choose_source("./looks-like-a-path", catalog, source=choice).entry.name == "shelf"
    assert choose_source("shelf://x", catalog, source=choice).name == "x"
    assert choose_source("other://x", catalog, source=choice).name == "other://x"


def test_a_path_of_a_named_local_source_is_relative_to_the_configuration(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    choice = PluginChoice(name="local")
    assert choose_source("here", catalog, tmp_path, source=choice).name == str(tmp_path / "here")
    assert choose_source("absent", catalog, tmp_path, source=choice).name == "absent"
