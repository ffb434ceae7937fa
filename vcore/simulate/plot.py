"""`plot_simulations`: simulations side by side as a picture. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcore.simulate.simulation import Simulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_simulations", "plot_sweep"]

_POINTS = 2000
"""Of a distribution that are drawn."""

Answer = Mapping[str, Any]
"""As `vcore.simulate.report.describe` describes it."""


def _figure(key: str, name: str) -> Callable[[Answer], float]:
    def take(answer: Answer) -> float:
        return float("nan") if answer[key] is None else float(answer[key][name])

    return take


_PANELS: tuple[tuple[str, Callable[[Answer], float]], ...] = (
    ("goodput, requests/s", _figure("goodput", "requests_per_s")),
    ("time to first token, p99, s", _figure("ttft_s", "p99")),
    ("between tokens, p99, s", _figure("itl_s", "p99")),
    ("hit rate", lambda answer: float(answer["hit_rate"])),
)
"""Of a sweep."""


def plot_simulations(path: Path, title: str, labels: Sequence[str], done: Sequence[Simulation]) -> None:
    """Distributions of three latencies, and the hit rate and open requests over time; a line a simulation.

    Args:
        path: where the picture goes; its suffix says which format.
        title: above it.
        labels: of the simulations.
        done: as many.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(title)
    axes: Any = figure.subplots(2, 2)
    for label, one in zip(labels, done, strict=True):
        timeline = one.timeline
        values, weights = timeline.gaps()
        ones = np.ones(len(timeline.arrived), dtype=np.int64)
        _distribution(axes[0, 0], "time to first token, s", label, timeline.first - timeline.arrived, ones)
        _distribution(axes[0, 1], "time between tokens, s", label, values, weights)
        _distribution(axes[1, 0], "end to end, s", label, timeline.last - timeline.arrived, ones)
        _open_requests(axes[1, 1], label, one)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path)


def plot_sweep(path: Path, title: str, axis_name: str, lines: Mapping[str, Sequence[tuple[float, Answer]]]) -> None:
    """What becomes of four figures along one axis of a sweep.

    Args:
        path: where the picture goes.
        title: above it.
        axis_name: what changes along it.
        lines: by label, pairs of a value of the axis and what `vcore.simulate.report.describe` says there.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(title)
    axes: Any = figure.subplots(2, 2)
    for axis, (name, take) in zip(axes.flat, _PANELS, strict=True):
        for label, points in lines.items():
            axis.plot([value for value, _ in points], [take(one) for _, one in points], marker="o", label=label)
        axis.set_xlabel(axis_name)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path)


def _distribution(axis: Axes, name: str, label: str, values: NDArray[np.float64], weights: NDArray[np.int64]) -> None:
    """The share of values that are below each."""
    known = ~np.isnan(values)
    values, weights = values[known], weights[known]
    if not values.size:
        return
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    # Few enough points for a file that opens at once.
    shown = np.unique(np.linspace(0, len(order) - 1, _POINTS).astype(np.int64))
    axis.plot(values[order][shown], below[shown] / below[-1], label=label)
    if values.min() > 0:
        axis.set_xscale("log")
    axis.set_xlabel(name)
    axis.set_ylabel("share")


def _open_requests(axis: Axes, label: str, done: Simulation) -> None:
    timeline = done.timeline
    ended = timeline.finished[~np.isnan(timeline.finished)]
    times = np.concatenate((timeline.arrived[~timeline.rejected], ended))
    changes = np.concatenate((np.ones(int((~timeline.rejected).sum())), -np.ones(len(ended))))
    order = np.argsort(times, kind="stable")
    axis.step(times[order], np.cumsum(changes[order]), where="post", label=label)
    axis.set_xlabel("simulated seconds")
    axis.set_ylabel("open requests")
