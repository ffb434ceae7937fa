"""The machine's side: which device, which dtype, how many threads. Importing it imports torch."""

from __future__ import annotations

import torch

from vcore.config import RuntimeConfig
from vcore.engine.resolve.decisions import Decision
from vcore.engine.resolve.hf_values import stored_dtype
from vcore.errors import ConfigError
from vcore.interfaces.hf_config import HFConfig

__all__ = ["compute_capability", "resolve_async_scheduling", "resolve_device", "resolve_dtype", "resolve_num_threads"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BFLOAT16_CAPABILITY = (8, 0)
"""The lowest CUDA compute capability that computes in bfloat16."""


def resolve_device(config: RuntimeConfig) -> tuple[torch.device, Decision | None]:
    """The device that is configured, or CUDA if there is any, else the CPU.

    Raises:
        ConfigError: there is no such device here, or there are fewer than ranks.
    """
    if config.device == "auto":
        cuda = torch.cuda.is_available()
        device = torch.device("cuda" if cuda else "cpu")
        why = f"torch finds {torch.cuda.get_device_name(0)}" if cuda else "torch finds no CUDA device"
        _check_count(device, config.tensor_parallel_size)
        return device, Decision(key="runtime.device", value=device.type, why=why)
    try:
        device = torch.device(config.device)
    except RuntimeError:
        raise ConfigError(
            f"runtime.device: found {config.device!r}, expected a torch device such as 'cpu', 'cuda' or 'cuda:1'"
        ) from None
    _check_available(device)
    _check_count(device, config.tensor_parallel_size)
    return device, None


def resolve_dtype(wanted: str, device: torch.device, config: HFConfig) -> tuple[torch.dtype, Decision | None]:
    """What weights and activations are computed in.

    Args:
        wanted: a dtype's name, or ``"auto"``.
        device: where it is computed.
        config: the model's.
    """
    if wanted != "auto":
        return _DTYPES[wanted], None
    name, why = _auto_dtype(device, stored_dtype(config))
    return _DTYPES[name], Decision(key="model.dtype", value=name, why=why)


def resolve_num_threads(wanted: int | str) -> tuple[int, Decision | None]:
    """CPU threads for computing; ``auto`` leaves torch's own choice."""
    if isinstance(wanted, int):
        return wanted, None
    count = torch.get_num_threads()
    return count, Decision(key="runtime.num_threads", value=count, why="torch's own choice on this machine")


def resolve_async_scheduling(wanted: bool | str, device: torch.device) -> tuple[bool, Decision | None]:
    """Whether a step is prepared while another is computed; ``auto``: where the device computes by itself."""
    if isinstance(wanted, bool):
        return wanted, None
    on_host = device.type == "cpu"
    why = "on the CPU a step's tokens are there at once" if on_host else f"{device.type} computes beside the host"
    return not on_host, Decision(key="runtime.async_scheduling", value=not on_host, why=why)


def compute_capability(device: torch.device) -> tuple[int, int] | None:
    """The CUDA compute capability of `device`; None where there is no such thing."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def _auto_dtype(device: torch.device, stored: str | None) -> tuple[str, str]:
    if device.type == "cpu":
        return "float32", "CPUs compute fastest in it"
    capability = compute_capability(device)
    half = "bfloat16" if capability is None or capability >= _BFLOAT16_CAPABILITY else "float16"
    if stored == "bfloat16" and half == "float16":
        return half, f"the model's own bfloat16 needs compute capability 8.0, and {device} has {_version(capability)}"
    if stored in _DTYPES:
        return stored, "the model's own"
    return half, f"the model's config says {stored or 'nothing'}, which is none of {', '.join(_DTYPES)}"


def _version(capability: tuple[int, int] | None) -> str:
    return ".".join(map(str, capability or ()))


def _check_available(device: torch.device) -> None:
    if device.type == "cpu":
        return
    backend = getattr(torch, device.type, None)
    if backend is None or not hasattr(backend, "is_available") or not backend.is_available():
        raise ConfigError(
            f"runtime.device: found '{device}', but this torch ({torch.__version__}) has no {device.type} device here; "
            "write 'cpu' or 'auto', or install the torch build and the driver for it"
        )
    count = backend.device_count()
    if device.index is not None and device.index >= count:
        raise ConfigError(f"runtime.device: found '{device}', but there are {count}, numbered from 0")


def _check_count(device: torch.device, ranks: int) -> None:
    if device.type == "cuda" and ranks > torch.cuda.device_count():
        raise ConfigError(
            f"runtime.tensor_parallel_size: found {ranks}, but there are {torch.cuda.device_count()} CUDA devices here"
        )
