"""The engine process does not outlive its parent, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Kill this process as soon as its parent is gone.

    Linux does it by itself. Everywhere, the end of standard input says it: the parent keeps the other end open, and
    never writes to it any more.

    Args:
        parent_pid: of whom this process was started by.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # it ended before the line above
            os._exit(1)
    threading.Thread(target=_wait_for_end, name="vcore-parent", daemon=True).start()


def _wait_for_end() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)
