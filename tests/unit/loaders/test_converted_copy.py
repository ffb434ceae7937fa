"""The converted copy of a GGUF file: made once, found again, made anew when it does not fit."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vcore_model_zoo.loaders import gguf_convert
from vcore_model_zoo.loaders.gguf_file import GGUFReader
from vcore_model_zoo.loaders.gguf_loader import GGUFLoader
from vcore_model_zoo.loaders.options import GGUFOptions
from vcore_model_zoo.loaders.safetensors_loader import SafetensorsReader

from vcore.errors import WeightsError
from vcore.interfaces.weights import WeightLoaderContext

Tensors = dict[str, np.ndarray[Any, Any]]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(write_gguf: Callable[..., Path], tiny_tensors: Tensors) -> Path:
    return write_gguf(tiny_tensors, name="models/tiny.gguf")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The places where copies were made."""
    places: list[Path] = []
    real = gguf_convert._make

    def counting(place: Any, file: Any, progress: Any) -> None:
        places.append(place.folder)
        real(place, file, progress)

    monkeypatch.setattr(gguf_convert, "_make", counting)
    return places


def loader(path: Path, **options: Any) -> GGUFLoader:
    return GGUFLoader(options=GGUFOptions(**options), context=WeightLoaderContext(path=path))


def assert_reads(path: Path, tensors: Tensors, reader_class: type, **options: Any) -> None:
    loaded = loader(path, **options)
    with loaded.open() as reader:
        assert isinstance(reader, reader_class)
        assert set(reader.tensors()) == set(tensors)
        for name, expected in tensors.items():
            assert torch.equal(reader.read(name, expected.shape), torch.from_numpy(expected))
    assert loaded.config().num_hidden_layers == 2


def test_it_is_made_once_beside_the_file(path: Path, tiny_tensors: Tensors, made: list[Path]) -> None:
    before = loader(path).config().to_dict()
    for _ in range(3):
        assert_reads(path, tiny_tensors, SafetensorsReader)
    assert made == [path.parent / "tiny.gguf.vcore"]
    assert loader(path).config().to_dict() == before
    assert loader(path).generation_config() == {"bos_token_id": 1, "eos_token_id": [2, 3]}
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        ".tiny.gguf.vcore.lock",
        "tiny.gguf",
        "tiny.gguf.vcore",
    ]


def test_with_a_copy_neither_gguf_nor_transformers_is_imported(path: Path) -> None:
    loader(path).open().close()
    script = (
        "import sys; from pathlib import Path\n"
        "from vcore.interfaces.weights import WeightLoaderContext\n"
        "from vcore_model_zoo.loaders.gguf_loader import GGUFLoader\n"
        f"loader = GGUFLoader(options=None, context=WeightLoaderContext(path=Path({str(path)!r})))\n"
        "loader.config(); loader.generation_config(); loader.tokenizer_path()\n"
        "with loader.open() as reader: reader.read('model.norm.weight', (64,))\n"
        "print(sorted({'gguf', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_progress_is_told(path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    context = WeightLoaderContext(path=path, progress=lambda *values: told.append(values))
    GGUFLoader(options=None, context=context).open().close()
    descriptions, done, totals = zip(*told, strict=True)
    assert set(descriptions) == {"Converting tiny.gguf"}
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]


def test_the_place_can_be_chosen(path: Path, tiny_tensors: Tensors, tmp_path: Path, made: list[Path]) -> None:
    for _ in range(2):
        assert_reads(path, tiny_tensors, SafetensorsReader, converted_folder=tmp_path / "elsewhere")
    assert [folder.parent for folder in made] == [tmp_path / "elsewhere"]


def test_where_the_folder_cannot_be_written_the_users_cache_serves(
    path: Path, tiny_tensors: Tensors, made: list[Path], cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gguf_convert._can_write
    monkeypatch.setattr(gguf_convert, "_can_write", lambda folder: folder != path.parent and real(folder))
    for _ in range(2):
        assert_reads(path, tiny_tensors, SafetensorsReader)
    assert [folder.parent for folder in made] == [cache_home / "vcore" / "converted"]
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.gguf"]


def remove_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()


def truncate_weights(copy: Path) -> None:
    with (copy / "model.safetensors").open("rb+") as opened:
        opened.truncate(5000)


def alter_config(copy: Path) -> None:
    text = (copy / "config.json").read_text(encoding="utf-8")
    (copy / "config.json").write_text(text.replace("10000.0", "20000.0"), encoding="utf-8")


def alter_manifest(copy: Path) -> None:
    (copy / "manifest.json").write_text("{}", encoding="utf-8")


def break_manifest(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b"\xff\x00")


def older_format(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 0}), encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [remove_weights, truncate_weights, alter_config, alter_manifest, break_manifest, older_format, shutil.rmtree],
)
def test_a_damaged_copy_is_made_anew(
    path: Path, tiny_tensors: Tensors, made: list[Path], damage: Callable[[Path], None]
) -> None:
    loader(path).open().close()
    damage(made[0])
    assert_reads(path, tiny_tensors, SafetensorsReader)
    assert len(made) == 2
    assert loader(path).config().rope_theta == 10000.0


def test_another_file_under_the_same_name(
    path: Path, write_gguf: Callable[..., Path], made: list[Path], untied_tensors: Tensors
) -> None:
    loader(path).open().close()
    write_gguf(untied_tensors, name="models/tiny.gguf")
    assert_reads(path, untied_tensors, SafetensorsReader)
    assert len(made) == 2


def test_what_a_killed_process_left_is_in_nobodys_way(path: Path, tiny_tensors: Tensors) -> None:
    for name in (".tiny.gguf.vcore.partial", ".tiny.gguf.vcore.old"):
        (path.parent / name).mkdir()
        (path.parent / name / "model.safetensors").write_bytes(b"half")
    (path.parent / "tiny.gguf.vcore").mkdir()
    assert_reads(path, tiny_tensors, SafetensorsReader)
    assert not [entry for entry in path.parent.iterdir() if entry.name.endswith((".partial", ".old"))]


def test_several_at_once_make_it_once(path: Path, tiny_tensors: Tensors, made: list[Path]) -> None:
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            barrier.wait()
            assert_reads(path, tiny_tensors, SafetensorsReader)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(made) == 1


def test_short_of_disk_it_does_without_and_says_so(
    path: Path, tiny_tensors: Tensors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9, 1000))
    with caplog.at_level(logging.WARNING):
        assert_reads(path, tiny_tensors, GGUFReader)
    assert "0.0 GiB are free" in caplog.text
    assert len(caplog.records) == 1
    assert not (path.parent / "tiny.gguf.vcore").exists()


def test_a_disk_that_fills_up_leaves_nothing_behind(
    path: Path, tiny_tensors: Tensors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf_convert, "write_float32", full)
    with caplog.at_level(logging.WARNING):
        assert_reads(path, tiny_tensors, GGUFReader)
    assert "No space left on device" in caplog.text
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".tiny.gguf.vcore.lock", "tiny.gguf"]


def test_large_weights_are_left_out_until_they_are_allowed(path: Path, tiny_tensors: Tensors, made: list[Path]) -> None:
    for _ in range(2):
        assert_reads(path, tiny_tensors, GGUFReader, max_converted_gib=0)
    assert len(made) == 1
    assert_reads(path, tiny_tensors, SafetensorsReader)
    assert len(made) == 2


def test_no_copy_if_none_is_wanted(path: Path, tiny_tensors: Tensors, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert_reads(path, tiny_tensors, GGUFReader, converted_copy=False)
    assert caplog.text == ""
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.gguf"]


def test_a_truncated_file_makes_no_copy(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-5000])
    with pytest.raises(WeightsError, match="truncated"):
        loader(path).open()
    assert not (path.parent / "tiny.gguf.vcore").exists()


def test_a_tokenizer_that_cannot_be_read_is_no_obstacle(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, write_gguf: Callable[..., Path], tiny_tensors: Tensors
) -> None:
    class NoTokenizer:
        @staticmethod
        def from_pretrained(*arguments: object, **keywords: object) -> None:
            raise ValueError("unknown vocabulary")

    import transformers

    path = write_gguf(tiny_tensors, values={"tokenizer.ggml.model": "gpt2"})
    file = loader(path)._open_file()
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(transformers, "AutoTokenizer", NoTokenizer)
        folder = tmp_path / "out"
        folder.mkdir()
        gguf_convert.write_model_files(file, folder)
    assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", "generation_config.json"]
    assert "unknown vocabulary" in caplog.text
    assert "model.tokenizer" in caplog.text
