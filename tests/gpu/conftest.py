"""Tests that need a CUDA device; those of Triton kernels are not even imported where Triton is not installed."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["test_triton_*.py"]
