"""``vcore bench startup``: from process start to the first token, each run in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vcore.bench.percentiles import percentiles
from vcore.config import EngineConfig
from vcore.errors import EngineError

__all__ = ["measure_startup"]

_CHILD = """
import json, sys, time
marks = {"python": time.time()}
import torch
marks["torch"] = time.time()
from vcore import LLM, SamplingParams, EngineConfig
llm = LLM(config=EngineConfig.model_validate_json(sys.argv[1]))
marks["engine"] = time.time()
llm.generate([list(range(1, 9))], SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True), use_tqdm=False)
marks["first_token"] = time.time()
print(json.dumps(marks))
"""


def measure_startup(config: EngineConfig, *, runs: int = 3, base_dir: Path | None = None) -> dict[str, Any]:
    """Start Python, import torch, build the engine, and generate one token of an 8-token prompt.

    Relative paths in the configuration are taken from `base_dir`.

    Returns:
        ``first_token_s`` with percentiles (seconds from the start of the process), and ``runs``, each with the
        seconds of its phases: ``python_s``, ``torch_s``, ``engine_s``, ``first_token_s`` (in all).

    Raises:
        EngineError: a run failed; its last lines of output are in the message.
    """
    results = []
    for _ in range(runs):
        began = time.time()
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, config.model_dump_json()],
            cwd=base_dir,
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode != 0:
            raise EngineError("a run of the start-up benchmark failed:\n" + "\n".join(child.stderr.splitlines()[-12:]))
        marks = json.loads(child.stdout.splitlines()[-1])
        results.append(
            {
                "python_s": marks["python"] - began,
                "torch_s": marks["torch"] - marks["python"],
                "engine_s": marks["engine"] - marks["torch"],
                "first_token_s": marks["first_token"] - began,
            }
        )
    return {
        "first_token_s": percentiles([run["first_token_s"] for run in results]),
        "num_runs": runs,
        "runs": results,
    }
