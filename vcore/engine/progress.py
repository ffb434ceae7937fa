"""Progress on a terminal: of a batch, and of downloads. Nothing is drawn where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from vcore.interfaces.sources import ProgressCallback
from vcore.outputs import RequestOutput

__all__ = ["BatchProgress", "batch_progress", "download_progress"]


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
def download_progress(*, enabled: bool) -> Iterator[ProgressCallback | None]:
    """A bar a file for a model source's fetches, shown only once something is fetched; None where none is drawn."""
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def note(description: str, done: int, total: int | None) -> None:
            if description not in tasks:
                tasks[description] = progress.add_task(description, total=total)
            progress.update(tasks[description], completed=done, total=total)

        yield note
