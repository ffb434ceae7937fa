"""`ChildProcess`: the engine's operating-system process: started, listened to, ended."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["ChildProcess"]

logger = logging.getLogger(__name__)

_NUM_LAST_LINES = 12
"""Of the log, told as part of the cause when the process ends."""


class ChildProcess:
    """A process in a group of its own, with its children in it: Ctrl-C does not reach it, and they end together."""

    def __init__(
        self,
        command: Sequence[str],
        first_line: bytes,
        on_exit: Callable[[str], None],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            command: what to run.
            first_line: written to its standard input, which then stays open until `close_input` or our end.
            on_exit: called once from a thread when it has ended, and its children with it; with the cause.
            cwd: its working directory; None for ours.
            env: its environment variables; None for ours.
        """
        self._on_exit = on_exit
        self._last_lines: deque[str] = deque(maxlen=_NUM_LAST_LINES)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            cwd=cwd,
            env=env,
        )
        self._lock = threading.Lock()
        self._reaped = False
        assert self._process.stdout is not None
        self._log = threading.Thread(target=self._copy_log, args=(self._process.stdout,), daemon=True)
        self._log.start()
        threading.Thread(target=self._wait, name="vcore-engine-exit", daemon=True).start()
        self._write(first_line)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def close_input(self) -> None:
        """Let it see the end of its standard input: it then ends at once."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def kill(self) -> None:
        """End it by force, and its children. Harmless once it has ended."""
        with self._lock:
            if not self._reaped:
                _kill_group(self.pid)

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended already, which `_wait` tells
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def _copy_log(self, stream: IO[bytes]) -> None:
        """What it writes, to our standard error."""
        with stream:
            for line in stream:
                text = line.decode(errors="replace")
                self._last_lines.append(text.rstrip())
                with suppress(OSError, ValueError):  # ours is closed
                    sys.stderr.write(text)
                    sys.stderr.flush()

    def _wait(self) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        # Until it is reaped, its number, and so its group's, cannot be given to anybody else.
        with self._lock:
            _kill_group(self.pid)
            self._process.wait()
            self._reaped = True
        self._log.join(timeout=1.0)
        self.close_input()
        self._on_exit(self._cause(self._process.returncode))

    def _cause(self, code: int) -> str:
        if -code in (signal.SIGKILL, signal.SIGTERM):
            return f"the engine process (pid {self.pid}) was killed by {_signal_name(-code)}"
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with status {code}"
        cause = f"the engine process (pid {self.pid}) {how}"
        lines = [line for line in self._last_lines if line.strip()]
        return f"{cause}; the last it said:\n" + "\n".join(f"  {line}" for line in lines) if lines else cause


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says so by the latter
        os.killpg(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
