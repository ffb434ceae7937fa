"""The simulated engine, by the name that the tests beside this module know it by."""

from vcore.testing.fake_worker import generate
from vcore.testing.simulated_engine import SimulatedEngine, StepFailedError

__all__ = ["SimulatedEngine", "StepFailedError", "generate"]
