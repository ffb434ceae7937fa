"""A server of our own that does not come up, or does not go away, is no riddle and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from vcore.bench.serve import server_process
from vcore.bench.serve.server_process import SpawnedServer
from vcore.errors import EngineError


def enter(server: SpawnedServer) -> None:
    async def main() -> None:
        async with server:
            pytest.fail("it cannot have been healthy")

    asyncio.run(main())


def stands_for_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Run `script` instead of ``vcore serve``."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\n{script}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(server_process.sys, "executable", str(path))


def test_a_server_that_ends_at_once_is_told_with_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stands_for_python(tmp_path, monkeypatch, "import sys; sys.exit(7)")
    with pytest.raises(EngineError, match="ended with exit status 7 before it served anything"):
        enter(SpawnedServer([]))


def test_the_arguments_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"
    stands_for_python(tmp_path, monkeypatch, f"import sys; open({str(said)!r}, 'w').write(' '.join(sys.argv[1:]))")
    with pytest.raises(EngineError):
        enter(SpawnedServer(["--model", "m"]))
    assert re.fullmatch(r"-m vcore serve --host 127\.0\.0\.1 --port \d+ --model m", said.read_text(encoding="utf-8"))


def test_a_server_that_never_answers_is_ended_even_if_it_does_not_want_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    stands_for_python(
        tmp_path,
        monkeypatch,
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n",
    )
    monkeypatch.setattr(server_process, "_STOP_TIMEOUT_S", 0.2)
    with pytest.raises(EngineError, match="was not healthy within 1 s"):
        enter(SpawnedServer([], start_timeout_s=1))
    if pid.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text(encoding="utf-8")), 0)
