"""Makes the helpers beside the tests, and the simulated engine of the scheduler's tests, importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "scheduler"))
