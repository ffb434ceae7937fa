"""Standard streams that are closed, cannot take a character, or fail when they are flushed."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcore.cli.main import run
from vcore.cli.streams import flush_stdout, prepare_streams


class FullDisk(io.StringIO):
    """Takes no text; its descriptor is that of a file of the test."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[FullDisk]:
    descriptor = os.open(tmp_path / "stdout", os.O_CREAT | os.O_WRONLY)
    yield FullDisk(descriptor)
    os.close(descriptor)


def test_closed_streams_become_the_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    prepare_streams()
    assert sys.stdin.read() == ""
    print("nowhere")
    print("nowhere", file=sys.stderr)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


def test_what_the_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    prepare_streams()
    print("é", flush=True)
    assert raw.getvalue() == b"\\xe9" + os.linesep.encode()


def test_a_failed_flush_is_returned_and_not_tried_again_at_exit(
    full: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", full)
    failure = flush_stdout()
    assert failure is not None
    assert failure.errno == errno.ENOSPC
    assert os.path.samestat(os.fstat(full.descriptor), os.stat(os.devnull))


def test_output_that_cannot_be_written_is_an_error(
    full: FullDisk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", full)
    assert run(["--version"]) == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the working directory of a process")
def test_a_working_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    status = run(["plugins", "list"])
    monkeypatch.chdir(tmp_path)
    assert status == 1
    assert capsys.readouterr().err == "error: the working directory no longer exists; change to another one\n"


@pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors by a POSIX shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_whose_parent_closed_its_streams(closed: str) -> None:
    script = "import sys; from vcore.cli.main import main; sys.argv[1:] = ['plugins', 'list']; main()"
    command = f'"$0" -c "$1" {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, script], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
