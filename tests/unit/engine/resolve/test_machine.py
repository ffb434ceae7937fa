"""Device, dtype and threads, also for machines that this one is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vcore.config import RuntimeConfig
from vcore.engine.resolve.machine import (
    compute_capability,
    resolve_async_scheduling,
    resolve_device,
    resolve_dtype,
    resolve_num_threads,
)
from vcore.errors import ConfigError
from vcore.interfaces.hf_config import HFConfig

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
BFLOAT16 = HFConfig({"torch_dtype": "bfloat16"})


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two CUDA devices, as far as torch says."""
    machine = SimpleNamespace(count=2, capability=(9, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: machine.count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: machine.count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Example GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: machine.capability)
    return machine


def test_auto_takes_cuda_if_there_is_any(gpus: SimpleNamespace) -> None:
    device, decision = resolve_device(RuntimeConfig())
    assert device.type == "cuda"
    assert decision is not None
    assert "Example GPU" in decision.why
    gpus.count = 0
    device, decision = resolve_device(RuntimeConfig())
    assert device == CPU
    assert decision is not None
    assert decision.why == "torch finds no CUDA device"


def test_a_named_device_must_be_there(gpus: SimpleNamespace) -> None:
    assert resolve_device(RuntimeConfig(device="cuda:1")) == (torch.device("cuda:1"), None)
    assert resolve_device(RuntimeConfig(device="cpu")) == (CPU, None)
    with pytest.raises(ConfigError, match="found 'cuda:2', but there are 2"):
        resolve_device(RuntimeConfig(device="cuda:2"))
    gpus.count = 0
    with pytest.raises(ConfigError, match=r"found 'cuda', but this torch .* has no cuda device here"):
        resolve_device(RuntimeConfig(device="cuda"))


@pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
def test_a_malformed_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="expected a torch device such as"):
        resolve_device(RuntimeConfig(device=device))


def test_there_must_be_a_gpu_for_each_rank(gpus: SimpleNamespace) -> None:
    resolve_device(RuntimeConfig(tensor_parallel_size=2))
    with pytest.raises(ConfigError, match="found 3, but there are 2 CUDA devices"):
        resolve_device(RuntimeConfig(tensor_parallel_size=3))
    assert resolve_device(RuntimeConfig(device="cpu", tensor_parallel_size=3))[0] == CPU


def test_dtype(gpus: SimpleNamespace) -> None:
    assert resolve_dtype("auto", CPU, BFLOAT16)[0] is torch.float32
    assert resolve_dtype("bfloat16", CPU, BFLOAT16) == (torch.bfloat16, None)
    assert resolve_dtype("auto", CUDA, BFLOAT16)[0] is torch.bfloat16
    assert resolve_dtype("auto", CUDA, HFConfig({"dtype": "float16"}))[0] is torch.float16
    assert resolve_dtype("auto", CUDA, HFConfig({"text_config": {"dtype": "float32"}}))[0] is torch.float32
    for unsaid in ({}, {"dtype": "float8_e4m3fn"}):
        value, decision = resolve_dtype("auto", CUDA, HFConfig(unsaid))
        assert value is torch.bfloat16
        assert decision is not None
        assert "none of float32" in decision.why


def test_old_gpus_have_no_bfloat16(gpus: SimpleNamespace) -> None:
    gpus.capability = (7, 5)
    value, decision = resolve_dtype("auto", CUDA, BFLOAT16)
    assert value is torch.float16
    assert decision is not None
    assert "cuda has 7.5" in decision.why
    assert resolve_dtype("auto", CUDA, HFConfig({}))[0] is torch.float16
    assert compute_capability(CUDA) == (7, 5)
    assert compute_capability(CPU) is None


def test_threads() -> None:
    assert resolve_num_threads(3) == (3, None)
    assert resolve_num_threads("auto")[0] == torch.get_num_threads()


def test_steps_overlap_where_the_device_computes_beside_the_host() -> None:
    assert resolve_async_scheduling("auto", CPU)[0] is False
    assert resolve_async_scheduling("auto", CUDA)[0] is True
    assert resolve_async_scheduling(True, CPU) == (True, None)
    assert resolve_async_scheduling(False, CUDA) == (False, None)
