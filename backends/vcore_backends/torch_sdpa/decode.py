"""Running the buckets of a step's decode rows, in their order."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vcore_backends.torch_sdpa.plan import DecodeBucket, DecodePlan

__all__ = ["run_buckets"]


def run_buckets(
    plan: DecodePlan,
    q: torch.Tensor,
    out: torch.Tensor,
    run: Callable[[DecodeBucket, torch.Tensor, torch.Tensor], None],
) -> None:
    """Call ``run(bucket, q, out)`` for each bucket, with rows in the plan's order.

    Args:
        plan: the decode rows.
        q: [at least num_decodes, ...]: decode rows first, as they stand in the batch.
        out: the same of results; its decode rows are written.
        run: reads rows ``bucket.start:bucket.stop`` of its `q`, and writes these of its `out`.
    """
    if plan.order is None:
        for bucket in plan.buckets:
            run(bucket, q, out)
        return
    ordered_q = q[plan.order]
    ordered_out = out.new_empty((len(plan.order), *out.shape[1:]))
    for bucket in plan.buckets:
        run(bucket, ordered_q, ordered_out)
    out.index_copy_(0, plan.order, ordered_out)
