"""Whether a model can be served, before anything of it is loaded."""

from __future__ import annotations

from vcore.engine.model_check.check import check_model
from vcore.engine.model_check.report import MemoryNeeds, ModelReport

__all__ = ["MemoryNeeds", "ModelReport", "check_model"]
