"""`plot_result`: the loads of a benchmark as a picture. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.runner import LoadRun
from vcore.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_plot", "plot_result"]

_PANELS: tuple[tuple[str, Callable[[RequestRecord], Sequence[float]]], ...] = (
    ("time to first token", lambda record: [record.ttft]),
    ("time between tokens", lambda record: record.gaps),
    ("end to end", lambda record: [record.e2e]),
)


def check_plot(path: Path) -> None:
    """Make sure, before hours of measuring, that there can be a picture.

    Raises:
        ConfigError: matplotlib is missing, the folder is not there, or the name ends with no format that it writes.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"--plot needs matplotlib: pip install 'vcore-engine[plot]' ({error})") from None
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ConfigError(f"--plot: found {str(path)!r}, expected a name that ends with .{', .'.join(sorted(known))}")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot: there is no folder {path.parent}; make it first")


def plot_result(path: Path, title: str, labels: Sequence[str], runs: Sequence[LoadRun]) -> None:
    """Distributions of three latencies and the number of open requests over time; a line a load.

    Args:
        path: where the picture goes; its suffix says which format.
        title: above it.
        labels: of the loads.
        runs: as many.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(title)
    axes: Any = figure.subplots(2, 2)
    for axis, (name, take) in zip(axes.flat, _PANELS, strict=False):
        _distributions(axis, name, [(label, _values(run, take)) for label, run in zip(labels, runs, strict=True)])
    _open_requests(axes.flat[3], list(zip(labels, runs, strict=True)))
    figure.savefig(path)


def _values(run: LoadRun, take: Callable[[RequestRecord], Sequence[float]]) -> list[float]:
    return sorted(chain.from_iterable(take(record) for record in run.records if record.ok))


def _distributions(axis: Axes, name: str, lines: Sequence[tuple[str, list[float]]]) -> None:
    """The share of values that are below each."""
    for label, values in lines:
        if values:
            axis.plot(np.array(values) * 1e3, np.arange(1, len(values) + 1) / len(values), label=label)
    if any(values and values[0] > 0 for _, values in lines):
        axis.set_xscale("log")
    axis.set_xlabel(f"{name}, ms")
    axis.set_ylabel("share")
    axis.grid(alpha=0.3)
    if any(values for _, values in lines):
        axis.legend()


def _open_requests(axis: Axes, lines: Sequence[tuple[str, LoadRun]]) -> None:
    for label, run in lines:
        changes = sorted(chain.from_iterable(((one.started, 1), (one.ended, -1)) for one in run.records))
        times = [time - run.began for time, _ in changes]
        axis.step(times, np.cumsum([change for _, change in changes]), where="post", label=label)
    axis.set_xlabel("seconds")
    axis.set_ylabel("open requests")
    axis.grid(alpha=0.3)
    axis.legend()
