"""The benchmark of kernels on CUDA: what is captured, and what is launched after a capture failed."""

from __future__ import annotations

import logging

import pytest
import torch

from vcore.bench.kernel_layers import PlainLayer
from vcore.bench.kernel_timer import KernelTimer, Launches
from vcore.bench.kernels import measure_kernels
from vcore.config import load_config

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")
LAYER = PlainLayer(num_heads=8, num_kv_heads=2, head_dim=64)


def test_decodes_are_captured_where_the_backend_lists_it_and_prefills_launched():
    result = measure_kernels(
        load_config({"runtime": {"device": "cuda"}}, {}),
        layer=LAYER,
        backends=["triton_paged", "torch_sdpa"],
        cases="decode:3x100,prefill:2x40+30",
        pool_bytes=1 << 20,
        seconds=0.0,
        ops=True,
    )
    assert result["unusable"] == []
    assert [row["error"] for row in (*result["kernels"], *result["ops"])] == [None] * (4 + len(result["ops"]))
    assert [row["captured"] for row in result["kernels"]] == [True, False, False, False]
    assert all(row["captured"] for row in result["ops"])
    assert result["device_name"] == torch.cuda.get_device_name()


def test_what_cannot_be_captured_is_launched_and_that_is_said(caplog: pytest.LogCaptureFixture):
    numbers = torch.ones(2, device=DEVICE)
    with caplog.at_level(logging.WARNING):
        timing = KernelTimer(DEVICE, pool_bytes=1, seconds=0.0).time(
            Launches(lambda index: numbers[index].item(), 2), capture=True
        )
    assert not timing.captured
    assert timing.microseconds > 0
    assert "not captured, so launched one by one" in caplog.text
