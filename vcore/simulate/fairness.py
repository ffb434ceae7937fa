"""`fairness`: how evenly service was shared, between tenants or between requests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcore.simulate.simulation import Simulation
from vcore.simulate.step_time import StepLoad
from vcore.simulate.timeline import Timeline

__all__ = ["fair_shares", "fairness", "jain"]

INPUT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0
"""What a token of a prompt and a generated one count as service, as in "Fairness in Serving Large Language Models"
(Sheng et al., OSDI'24, arXiv:2401.00588)."""


def jain(shares: NDArray[np.float64]) -> float:
    """The fairness index of R. Jain, D. Chiu and W. Hawe (DEC-TR-301, 1984), equation 1: from 1 / n to 1, all alike.

    Args:
        shares: float64 [n], each at least 0, not all of them 0.
    """
    return float(shares.sum() ** 2 / (len(shares) * np.square(shares).sum()))


def fair_shares(demands: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """A total divided max-min fairly: all alike, but nobody more than it demands (water filling).

    Args:
        demands: float64 [n].
        total: what there is to divide; what exceeds all demands is left over.

    Returns:
        float64 [n].
    """
    shares = np.zeros(len(demands))
    left = total
    order = np.argsort(demands, kind="stable")
    for position, index in enumerate(order.tolist()):
        shares[index] = min(float(demands[index]), left / (len(order) - position))
        left -= shares[index]
    return shares


def fairness(done: Simulation) -> dict[str, Any]:
    """Jain's index, over tenants where the trace has several, else over requests.

    Over tenants: of the service that each got up to the last arrival, divided by its max-min fair share of all that was
    given until then; 1 is exactly fair, and only what happens under load counts. A request counts from when it starts,
    its prompt as it is computed (at an even pace) and then each token.

    Over requests: of the time that each would have taken alone, divided by the time that it took.

    Returns:
        ``by`` (``tenant`` or ``request``), ``jain``, and of tenants ``worst_share`` (service over fair share of the one
        that got least of its own), ``most_share`` and ``tenants``: by name, ``demand``, ``service`` and ``fair_share``.
    """
    names = [one.tenant for one in done.trace.requests]
    if len(set(names)) < 2:
        return {"by": "request", "jain": _jain_of_requests(done)}
    tenants, index_of = np.unique(np.array(["" if name is None else name for name in names]), return_inverse=True)
    horizon = float(done.timeline.arrived[-1])
    service = np.bincount(index_of, weights=_service(done, horizon), minlength=len(tenants))
    demand = np.bincount(index_of, weights=_service(done, np.inf), minlength=len(tenants)).astype(np.float64)
    fair = fair_shares(demand, float(service.sum()))
    shares = np.divide(service, fair, out=np.ones_like(service), where=fair > 0)
    told = {
        name: {"demand": needed, "service": got, "fair_share": due}
        for name, needed, got, due in zip(
            tenants.tolist(), demand.tolist(), service.tolist(), fair.tolist(), strict=True
        )
    }
    return {
        "by": "tenant",
        "jain": jain(shares),
        "worst_share": float(shares.min()),
        "most_share": float(shares.max()),
        "tenants": told,
    }


def _service(done: Simulation, until: float) -> NDArray[np.float64]:
    """Weighted tokens of each request up to a moment, float64 [num_requests]."""
    timeline = done.timeline
    prompts = np.array([one.input_length for one in done.trace.requests], dtype=np.float64)
    outputs = np.array([one.output_length for one in done.trace.requests], dtype=np.float64)
    computed = _progress(timeline.started, timeline.first, until)
    generated = np.where(
        timeline.first <= until, 1 + _progress(timeline.first, timeline.last, until) * (outputs - 1), 0
    )
    if np.isinf(until):  # what was refused was demanded, too
        computed, generated = np.ones_like(prompts), outputs
    return INPUT_WEIGHT * prompts * computed + OUTPUT_WEIGHT * generated


def _progress(begins: NDArray[np.float64], ends: NDArray[np.float64], until: float) -> NDArray[np.float64]:
    """How far each span is passed, from 0 to 1."""
    spans = np.maximum(ends - begins, 1e-12)
    return np.nan_to_num(np.clip((until - begins) / spans, 0.0, 1.0))


def _jain_of_requests(done: Simulation) -> float | None:
    timeline: Timeline = done.timeline
    ended = np.flatnonzero(~np.isnan(timeline.finished))
    if not ended.size:
        return None
    took = (timeline.finished - timeline.arrived)[ended]
    alone = np.array([_alone_s(done, index) for index in ended.tolist()])
    return jain(np.divide(alone, took, out=np.ones_like(took), where=took > 0))


def _alone_s(done: Simulation, index: int) -> float:
    """Seconds of a request on an idle replica with an empty cache, its prompt computed in one step."""
    one, model = done.trace.requests[index], done.settings.step_time
    prompt, later = one.input_length, one.output_length - 1
    prefill = model.seconds(StepLoad(prompt, 1, prompt * (prompt + 1) // 2, 0, 0, prompt))
    return prefill + later * model.seconds(StepLoad(1, 0, 0, 1, prompt + later // 2, 0))
