"""What the contract suite cannot see: lengths known only as bounds, refusals, shared memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from vcore_backends.torch_sdpa.backend import TorchSDPABackend
from vcore_backends.torch_sdpa.buckets import BucketLimits
from vcore_backends.torch_sdpa.plan import StepPlanner

from vcore.interfaces.attention import LayerSpec
from vcore.testing.attention_case import AttentionCase

SPEC = LayerSpec(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25)
REQUESTS = [(1, 9), (1, 30), (1, 1), (6, 6), (5, 20), (130, 200)]


class BoundedBackend(TorchSDPABackend):
    """Plans as on a device whose lengths the host cannot read."""

    def __init__(self, *, options: None, context) -> None:
        super().__init__(options=options, context=context)
        self._planner = StepPlanner(
            block_size=context.block_size, dtype=context.dtype, device=context.device, exact_lengths=False
        )


@pytest.mark.parametrize("excess", [0, 1, 7])
@pytest.mark.parametrize(
    "spec",
    [SPEC, replace(SPEC, sliding_window=4), replace(SPEC, soft_cap=2.0), replace(SPEC, causal=False)],
    ids=["plain", "window", "soft_cap", "non_causal"],
)
def test_host_lengths_may_be_upper_bounds(spec: LayerSpec, excess: int):
    case = AttentionCase(spec, REQUESTS, block_size=4)
    metadata = case.metadata
    whole_prompt = metadata.seq_lens_cpu == np.diff(metadata.query_start_loc_cpu)
    whole_prompt[: metadata.num_decodes] = False
    metadata.seq_lens_cpu = metadata.seq_lens_cpu + np.where(whole_prompt, 0, excess).astype(np.int32)
    result = case.run(BoundedBackend)
    torch.testing.assert_close(result.double(), case.expected(), rtol=2e-6, atol=2e-6)


def test_many_buckets_give_what_one_gives(monkeypatch: pytest.MonkeyPatch):
    requests = [(1, length) for length in (5, 300, 7, 290, 6, 1, 80)]
    case = AttentionCase(SPEC, requests, block_size=4)
    together = case.run(TorchSDPABackend)
    monkeypatch.setattr(TorchSDPABackend, "_bucket_limits", lambda self: BucketLimits(max_keys=400, max_padding=3))
    apart = case.run(TorchSDPABackend)
    torch.testing.assert_close(apart, together, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(apart.double(), case.expected(), rtol=2e-6, atol=2e-6)


def test_layers_with_different_windows_live_in_one_model():
    windowed = replace(SPEC, sliding_window=3)
    case = AttentionCase(SPEC, REQUESTS, block_size=4)
    backend = TorchSDPABackend(options=None, context=case.context())
    layers = {spec: backend.build_layer(spec) for spec in (SPEC, windowed)}
    plan = backend.plan(case.metadata)
    for spec, layer in layers.items():
        case.spec = spec
        result = layer.forward(case.q, case.k, case.v, case.cache(), plan)
        torch.testing.assert_close(result.double(), case.expected(), rtol=2e-6, atol=2e-6)


def test_what_it_cannot_serve_is_told():
    context = AttentionCase(SPEC, REQUESTS, block_size=4).context()
    assert not TorchSDPABackend.unsupported_reasons(context, [SPEC, replace(SPEC, v_head_dim=16)])
    (reason,) = TorchSDPABackend.unsupported_reasons(context, [SPEC, replace(SPEC, v_head_dim=8)])
    assert "values must have as many features as keys" in reason
    (reason,) = TorchSDPABackend.unsupported_reasons(context, [replace(SPEC, causal=False, sliding_window=3)])
    assert "causal layers only" in reason
