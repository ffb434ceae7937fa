"""What commands print: one JSON object on stdout and everything else on stderr, or lines for people."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

__all__ = ["print_error", "print_table", "reserved_stdout"]

JsonEmitter = Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def reserved_stdout(enabled: bool) -> Iterator[JsonEmitter]:
    """Keep stdout for the one JSON object of a command.

        with reserved_stdout(as_json) as emit:
            result = work()
            if as_json:
                emit(result)

    While it is entered, all that Python code, C code and child processes write to stdout goes to
    stderr; only `emit` reaches the real one.

    Args:
        enabled: whether ``--json`` was given; if not, stdout is left alone.

    Yields:
        A function that prints a mapping as one line of JSON.
    """
    real = sys.stdout
    if not enabled:
        yield lambda payload: _write_json(real, payload)
        return
    real.flush()
    with _descriptor_to_stderr(real) as target, contextlib.redirect_stdout(sys.stderr):
        yield lambda payload: _write_json(target, payload)


@contextlib.contextmanager
def _descriptor_to_stderr(stream: TextIO) -> Iterator[TextIO]:
    """Point the descriptor of `stream` at stderr, and yield a stream to where it pointed before.

    A stream without a descriptor of the process, as in tests and notebooks, is yielded as it is.
    """
    try:
        descriptor, error_descriptor = stream.fileno(), sys.stderr.fileno()
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
        yield stream
        return
    saved = os.dup(descriptor)
    os.dup2(error_descriptor, descriptor)
    try:
        with open(saved, "w", encoding="utf-8", closefd=False) as target:
            yield target
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def _write_json(stream: TextIO, payload: Mapping[str, Any]) -> None:
    stream.write(json.dumps(payload) + "\n")
    stream.flush()


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, the last one as it comes; cells are put on one line each."""
    lines = [[" ".join(str(cell).split()) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[-1] = 0
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_error(error: BaseException) -> None:
    """``error: MESSAGE`` on stderr, with the notes that were added on the way."""
    print(f"error: {error}", file=sys.stderr)
    for note in getattr(error, "__notes__", ()):
        print(f"  ({note})", file=sys.stderr)
