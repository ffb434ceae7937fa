"""The loader by the files that are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vcore.config import load_config
from vcore.engine.resolve import Resolution, resolve
from vcore.errors import ModelNotFoundError, PluginConflictError, PluginNotFoundError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import WeightLoaderSpec

Resolve = Callable[..., Resolution]


def never(*, options: object, context: object) -> None: ...


@pytest.mark.parametrize(
    ("files", "loader"),
    [
        (("model.safetensors",), "safetensors"),
        (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), "safetensors"),
        (("a.gguf",), "gguf"),
        (("A.GGUF",), "gguf"),
        (("a.gguf", "model.safetensors"), "safetensors"),
    ],
)
def test_the_files_choose_the_loader(resolve_model: Resolve, files: tuple[str, ...], loader: str) -> None:
    resolution = resolve_model(files=files)
    assert resolution.loader_entry.name == loader
    assert resolution.config.model.load_format.name == loader


def test_the_rejected_loaders_have_reasons(resolve_model: Resolve, decided: Callable[..., dict[str, Any]]) -> None:
    decision = decided(resolve_model(files=("a.gguf", "b.safetensors")))["model.load_format"]
    assert "b.safetensors" in decision.why
    assert dict(decision.rejected) == {
        "weight_loader/gguf@vcore-engine": ("a.gguf would do, but another loader comes first",),
        "weight_loader/dummy@vcore-engine": ("it is used only when it is named",),
    }


def test_a_single_file_goes_by_its_suffix(write_model: Callable[..., Path], catalog: Catalog) -> None:
    folder = write_model(files=("a.gguf", "b.safetensors"))
    config = load_config({"model.path": str(folder / "a.gguf"), "runtime.device": "cpu"})
    resolution = resolve(config, catalog)
    assert (resolution.loader_entry.name, resolution.model_path) == ("gguf", folder / "a.gguf")


def test_dummy_needs_only_the_config(resolve_model: Resolve) -> None:
    assert resolve_model({"model.load_format": "dummy"}, files=()).loader_entry.name == "dummy"


@pytest.mark.parametrize(("files", "found"), [((), "config.json"), (("pytorch_model.bin",), "pytorch_model.bin")])
def test_a_folder_without_known_weights_is_told(resolve_model: Resolve, files: tuple[str, ...], found: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model(files=files)
    assert found in str(caught.value)
    assert "expected weights that end in .safetensors (safetensors), .gguf (gguf)" in str(caught.value)
    assert "load_format: dummy" in str(caught.value)


def test_many_files_are_not_all_listed(resolve_model: Resolve) -> None:
    with pytest.raises(ModelNotFoundError, match="and 9 more, expected"):
        resolve_model(files=tuple(f"part-{index:02}.bin" for index in range(20)))


def test_a_format_that_is_not_there(resolve_model: Resolve) -> None:
    with pytest.raises(PluginNotFoundError, match="did you mean 'gguf'"):
        resolve_model({"model.load_format": "guff"})


def test_a_source_that_returns_nothing_real_is_told(
    catalog: Catalog, shelf: list[tuple[str, bool]], tmp_path: Path
) -> None:
    (tmp_path / "on-the-shelf").rename(tmp_path / "away")
    with pytest.raises(ModelNotFoundError, match="its model source said that it is there"):
        resolve(load_config({"model.path": "tiny-model", "runtime.device": "cpu"}), catalog)


def test_loaders_of_equal_rank_are_a_conflict(
    make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry], resolve_model: Resolve
) -> None:
    specs = [
        WeightLoaderSpec(name=name, load=never, api="1.0", formats=(name,), suffixes=(".safetensors",))
        for name in ("one", "two")
    ]
    catalog = make_catalog(*(make_entry(spec, distribution="acme") for spec in specs), without=("safetensors",))
    with pytest.raises(PluginConflictError, match=r"`model\.load_format: one` or `model\.load_format: two`"):
        resolve_model(using=catalog)


def test_a_strangers_loader_does_not_come_before_the_cores(
    make_catalog: Callable[..., Catalog], make_entry: Callable[..., CatalogEntry], resolve_model: Resolve
) -> None:
    spec = WeightLoaderSpec(name="st", load=never, api="1.0", rank=99, formats=("st",), suffixes=(".safetensors",))
    catalog = make_catalog(make_entry(spec, distribution="acme"))
    assert resolve_model(using=catalog).loader_entry.name == "safetensors"
