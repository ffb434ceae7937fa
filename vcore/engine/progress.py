"""Progress on a terminal: of a batch, and of loading a model. Nothing is drawn where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from vcore.interfaces.sources import ProgressCallback
from vcore.outputs import RequestOutput

__all__ = ["BatchProgress", "batch_progress", "loading_progress"]


class BatchProgress(Protocol):
    """Told of each request that ends."""

    def __call__(self, output: RequestOutput) -> None: ...


def _no_progress(output: RequestOutput) -> None:
    """Draw nothing."""


@contextmanager
def batch_progress(num_requests: int, *, enabled: bool) -> Iterator[BatchProgress]:
    """A bar over the requests of a batch, with output tokens a second.

    Args:
        num_requests: how many will end.
        enabled: whether the caller wants it; it is drawn only if stderr is a terminal, too.
    """
    if not enabled or not num_requests or not sys.stderr.isatty():
        yield _no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("generating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    began, num_tokens = time.perf_counter(), 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=num_requests, speed="")

        def note(output: RequestOutput) -> None:
            nonlocal num_tokens
            num_tokens += sum(len(sample.token_ids) for sample in output.outputs)
            speed = num_tokens / (time.perf_counter() - began)
            progress.update(task, advance=1, speed=f"{speed:,.1f} tokens/s")

        yield note


@contextmanager
def loading_progress(*, enabled: bool) -> Iterator[ProgressCallback | None]:
    """A line while a model is loaded, and one for each file that its source fetches.

    Yields:
        What to tell of fetches, or None where nothing is drawn.
    """
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}{task.fields[amount]}"), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task("loading the model", total=None, amount="")

        def note(description: str, done: int, total: int | None) -> None:
            if description not in tasks:
                tasks[description] = progress.add_task(description, total=total, amount="")
            progress.update(tasks[description], completed=done, total=total, amount=_amount(done, total))

        yield note


def _amount(done: int, total: int | None) -> str:
    """So many megabytes, of how many."""
    return f": {done / 1e6:,.1f} MB" if total is None else f": {done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
