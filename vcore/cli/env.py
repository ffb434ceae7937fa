"""``vcore env``: this machine and this installation, to paste into a report."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Json
from vcore.version import __version__

__all__ = ["command", "describe"]

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "gguf",
    "numpy",
    "pluggy",
    "pydantic",
    "triton",
    "flash-attn",
    "xformers",
)
"""What matters to a report; those that are not installed are told as such."""


def command(as_json: Json = False) -> None:
    """Describe this machine and installation: versions, plugins, processor, memory, CUDA."""
    with reserved_stdout(as_json) as emit:
        found = describe()
        if as_json:
            emit(found)
            return
        for line in _lines(found):
            typer.echo(line)


def describe() -> dict[str, Any]:
    """Everything, as plain data. Nothing in it is secret: no environment variables, no user names."""
    return {
        "vcore": __version__,
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "plugins": _plugins(),
        "cpu": {"model": _cpu_model(), "count": os.cpu_count(), "usable": _usable_cpus()},
        "memory_bytes": _memory_bytes(),
        "cuda": _cuda(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _plugins() -> list[dict[str, Any]]:
    """One entry a distribution that has plugins, with how many can be used."""
    from vcore.config import PluginsConfig
    from vcore.plugins.discovery import discover

    counts: dict[tuple[str, str | None], dict[str, Any]] = {}
    for entry in discover(PluginsConfig()).entries:
        row = counts.setdefault(
            (entry.distribution, entry.version),
            {"distribution": entry.distribution, "version": entry.version, "plugins": 0, "not_usable": []},
        )
        row["plugins"] += 1
        if not entry.ok:
            row["not_usable"].append(f"{entry.address}: {entry.status.value}: {entry.reason}")
    return list(counts.values())


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cpus() -> int | None:
    """How many this process may use, which containers lower."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_bytes() -> int | None:
    """Physical memory, or None where the platform does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _cuda() -> dict[str, Any]:
    """What torch says of CUDA; a torch that cannot be imported is worth telling, not worth failing."""
    try:
        import torch
    except Exception as error:
        return {"available": False, "error": f"torch cannot be imported: {type(error).__name__}: {error}"}
    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append(
                {
                    "name": properties.name,
                    "memory_bytes": properties.total_memory,
                    "compute_capability": f"{properties.major}.{properties.minor}",
                }
            )
    return {"available": bool(devices), "version": torch.version.cuda, "devices": devices}


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"vcore {found['vcore']}",
        f"python {found['python']} ({found['implementation']}) on {found['platform']}",
        f"cpu: {found['cpu']['model']}, {found['cpu']['count']} threads, {found['cpu']['usable']} usable",
        f"memory: {_gib(found['memory_bytes'])}",
        f"cuda: {_cuda_line(found['cuda'])}",
    ]
    for device in found["cuda"].get("devices", []):
        capability = device["compute_capability"]
        lines.append(f"  {device['name']}, {_gib(device['memory_bytes'])}, compute capability {capability}")
    lines.append("packages:")
    lines += [f"  {name} {version or '(not installed)'}" for name, version in found["packages"].items()]
    lines.append("plugins:")
    for row in found["plugins"]:
        lines.append(f"  {row['distribution']} {row['version'] or ''}: {row['plugins']} plugins")
        lines += [f"    not usable: {reason}" for reason in row["not_usable"]]
    return lines


def _cuda_line(cuda: dict[str, Any]) -> str:
    if "error" in cuda:
        return str(cuda["error"])
    return f"{len(cuda['devices'])} devices" if cuda["available"] else "none"


def _gib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"
