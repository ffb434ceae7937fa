"""The lock: one at a time, and free again however its holder ends."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from vcore_model_zoo.storage.file_lock import FileLock


def test_one_thread_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with FileLock(tmp_path / "x.lock"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x.lock"
    script = (
        "import os, pathlib, signal\n"
        "from vcore_model_zoo.storage.file_lock import FileLock\n"
        f"with FileLock(pathlib.Path({str(path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert path.exists()
    with FileLock(path):
        pass


def test_waiting_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.lock"
    holding, waiting = threading.Event(), threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waiting.set()

    def hold() -> None:
        with FileLock(path):
            holding.set()
            assert waiting.wait(timeout=30)

    logger = logging.getLogger("vcore_model_zoo.storage.file_lock")
    handler = Told()
    logger.addHandler(handler)
    thread = threading.Thread(target=hold)
    try:
        with caplog.at_level(logging.INFO, logger=logger.name):
            thread.start()
            assert holding.wait(timeout=30)
            with FileLock(path):
                pass
    finally:
        logger.removeHandler(handler)
        thread.join()
    assert f"waiting for another process to finish with {path}" in caplog.text


def test_an_error_within_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FileLock(tmp_path / "x.lock"):
        _ = 1 / 0
    with FileLock(tmp_path / "x.lock"):
        pass
