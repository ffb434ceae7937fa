"""Tests that need a CUDA device; those marked ``interpreted`` also run on a CPU, under ``TRITON_INTERPRET=1``.

Those of Triton kernels are not even imported where Triton is not installed.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec

import pytest
from packaging.version import Version

_REMEDY = "pip install -r tests/gpu/requirements-interpreter.txt"

collect_ignore_glob = [] if find_spec("triton") else ["test_triton_*.py"]


def _reason_against_the_interpreter() -> str | None:
    if not find_spec("triton"):
        return "Triton is not installed"
    if Version(version("triton")) < Version("3.7") and Version(version("numpy")) >= Version("2.4"):
        return f"the interpreter of Triton {version('triton')} does not work with NumPy {version('numpy')}"
    return None


if os.environ.get("TRITON_INTERPRET") == "1" and (reason := _reason_against_the_interpreter()):
    # Without it, nothing at all would run, or everything would fail.
    pytest.exit(f"TRITON_INTERPRET=1, but {reason}: {_REMEDY}", returncode=pytest.ExitCode.USAGE_ERROR)
