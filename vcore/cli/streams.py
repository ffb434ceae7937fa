"""The process's standard streams: there even if closed, able to print any character, and flushed."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["flush_stdout", "prepare_streams"]


def prepare_streams() -> None:
    """Put the null device in the place of standard streams that are closed, and let no character stop the output.

    Services and cron may start a program without them; Python has None in `sys` then. The null device is opened
    in the order of the descriptors and so takes the closed ones, lest a file of ours be taken for a stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> OSError | None:
    """Flush stdout; if that fails, leave nothing for the interpreter to complain about at exit.

    Returns:
        Why it failed: the reader is gone (`BrokenPipeError`), the disk is full.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
