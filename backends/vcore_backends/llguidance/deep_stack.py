"""`with_deep_stack`: runs native code that recurses as deep as its input is nested."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["with_deep_stack"]

T = TypeVar("T")

_STACK_BYTES = 256 << 20
"""Address space, of which only what is touched takes memory. The library takes 8 KB of stack a definition that refers
to the next one, and the limits of forms let about 4,000 of those through: an ordinary stack of 8 MB ends at 1,000, and
the process with it."""
_setting = threading.Lock()
"""The size is a setting of the whole process."""


def with_deep_stack(function: Callable[[], T]) -> T:
    """What `function` returns or raises, in a thread of its own, which the caller waits for."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # it is raised where it is waited for
            errors.append(error)

    thread = threading.Thread(target=run, name="vcore-deep-stack", daemon=True)
    with _setting:
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
