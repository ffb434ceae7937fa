"""``vcore bench kernels``: attention backends, and fused operations, by themselves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vcore.bench.kernel_backends import KernelBackends, NamedBackend
from vcore.bench.kernel_cases import CPU_CASES, DEVICE_CASES, KernelCase, parse_cases
from vcore.bench.kernel_layers import TimedLayer
from vcore.bench.kernel_ops import op_cases
from vcore.bench.kernel_timer import KernelTimer
from vcore.config import EngineConfig
from vcore.engine.resolve.machine import resolve_device
from vcore.errors import ConfigError
from vcore.interfaces.attention import AttentionBackendContext
from vcore.plugins import discover

__all__ = ["measure_kernels"]

logger = logging.getLogger(__name__)

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_POOL_BYTES = {"cpu": 64 << 20}
"""Inputs that are rotated: more than the last cache of a device holds, 50 MB on an H100."""
_POOL_BYTES_DEVICE = 300 << 20
_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Run:
    """What the parts of a measurement share."""

    device: torch.device
    dtype: torch.dtype
    timer: KernelTimer


def measure_kernels(
    config: EngineConfig,
    *,
    layer: TimedLayer,
    backends: Sequence[str] = (),
    cases: str | None = None,
    block_sizes: Sequence[int] = (),
    dtype: str | None = None,
    ops: bool = False,
    base_dir: Path | None = None,
    pool_bytes: int | None = None,
    seconds: float = _SECONDS,
) -> dict[str, Any]:
    """Time one layer's attention through the contract that the engine uses, case by case.

    A decode's rate is ``tb_per_s``: the bytes of all cached keys and values, once, over the time; queries, results and
    block tables do not count. A prefill's is ``tflop_per_s``: `TimedLayer.operations` over the time. The time is that
    of one layer, without the plan of the step, which is made once for all layers. `KernelTimer` says how it is taken;
    decodes are captured where the backend lists it, prefills are launched.

    Args:
        config: for the device, the plugins, and options of the backend that it names.
        layer: whose attention is timed.
        backends: names; none for all that are installed.
        cases: as `parse_cases` reads them; None for `DEVICE_CASES` or `CPU_CASES`.
        block_sizes: tokens a cache block holds, each in turn; none for what an engine would take.
        dtype: ``bfloat16``, ``float16`` or ``float32``; None for float32 on a CPU, else bfloat16.
        ops: whether to time operations, too.
        base_dir: what paths of plugins are relative to.
        pool_bytes: memory that rotated inputs take; None for 300 MiB, or 64 MiB on a CPU.
        seconds: how long samples of one case are taken for.

    Returns:
        ``device``, ``device_name``, ``dtype``, ``layer`` (its spec), ``kernels`` (a row for each backend, block size
        and case: ``backend``, ``block_size``, ``case``, ``us``, ``tb_per_s``, ``tflop_per_s``, ``captured``,
        ``error``), ``unusable`` (``backend``, ``reasons``) and ``ops`` (``op``, ``shape``, ``us``, ``tb_per_s``,
        ``captured``, ``error``). A row that failed has an error and no numbers.

    Raises:
        ConfigError: the cases, the dtype or the device are wrong.
        PluginNotFoundError: there is no backend of that name.
    """
    device, _ = resolve_device(config.runtime)
    parsed = parse_cases(cases or (CPU_CASES if device.type == "cpu" else DEVICE_CASES))
    pool = _POOL_BYTES.get(device.type, _POOL_BYTES_DEVICE) if pool_bytes is None else pool_bytes
    run = _Run(device, _dtype(dtype, device), KernelTimer(device, pool_bytes=pool, seconds=seconds))
    found = KernelBackends(discover(config.plugins, base_dir=base_dir), config, backends)
    with torch.inference_mode(), _current(device):
        rows = list(_attention_rows(run, found, layer, parsed, block_sizes or (None,)))
        op_rows = list(_op_rows(run)) if ops else []
    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "dtype": str(run.dtype).removeprefix("torch."),
        "layer": layer.describe(),
        "kernels": rows,
        "unusable": found.unusable,
        "ops": op_rows,
    }


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ConfigError(f"--dtype: found {name!r}, expected one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Streams, events and graphs are those of the current CUDA device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _attention_rows(
    run: _Run,
    backends: KernelBackends,
    layer: TimedLayer,
    cases: Sequence[KernelCase],
    block_sizes: Sequence[int | None],
) -> Iterator[dict[str, Any]]:
    for backend in backends.named:
        for wanted in block_sizes:
            size = backends.block_size(backend, wanted)
            if backends.serves(backend, layer, _context(run, cases, size)):
                for case in cases:
                    yield _attention_row(run, backends, backend, layer, case, size)


def _attention_row(
    run: _Run, backends: KernelBackends, backend: NamedBackend, layer: TimedLayer, case: KernelCase, block_size: int
) -> dict[str, Any]:
    row = {"backend": backend.name, "block_size": block_size, "case": case.name}
    row |= {"us": None, "tb_per_s": None, "tflop_per_s": None, "captured": None, "error": None}
    try:
        context = _context(run, [case], block_size)
        launches = layer.launches(backends.create(backend, context), case, context, run.timer)
        capture = case.is_decode and backend.capabilities.graph_support != "none"
        timing = run.timer.time(launches, capture=capture)
    except Exception as error:  # one case must not cost the others, whatever a plugin's code does
        return row | {"error": _told(error)}
    row |= {"us": timing.microseconds, "captured": timing.captured}
    if case.is_decode:
        return row | {"tb_per_s": layer.bytes_read(case, run.dtype.itemsize) / timing.microseconds / 1e6}
    return row | {"tflop_per_s": layer.operations(case) / timing.microseconds / 1e6}


def _context(run: _Run, cases: Sequence[KernelCase], block_size: int) -> AttentionBackendContext:
    """An engine that is large enough for `cases`."""
    return AttentionBackendContext(
        device=run.device,
        dtype=run.dtype,
        block_size=block_size,
        max_num_seqs=max(case.num_requests for case in cases),
        max_num_batched_tokens=max(case.num_tokens for case in cases),
        max_model_len=max(case.seq_len for case in cases),
    )


def _op_rows(run: _Run) -> Iterator[dict[str, Any]]:
    for case in op_cases(run.device, run.dtype):
        row = {"op": case.name, "shape": case.shape, "us": None, "tb_per_s": None, "captured": None, "error": None}
        try:
            prepared = case.prepare(run.timer)
            timing = run.timer.time(prepared.launches, capture=True)
        except Exception as error:  # as above
            yield row | {"error": _told(error)}
            continue
        rate = prepared.num_bytes / timing.microseconds / 1e6
        yield row | {"us": timing.microseconds, "tb_per_s": rate, "captured": timing.captured}


def _told(error: Exception) -> str:
    """The error in one line, with its traceback in the log for those who want it."""
    logger.debug("a measurement failed", exc_info=error)
    first = next(iter(str(error).strip().splitlines()), "")
    hint = "; give a smaller case" if isinstance(error, torch.OutOfMemoryError) else ""
    return f"{type(error).__name__}: {first}{hint}"
