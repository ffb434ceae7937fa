"""A request as a policy sees it, for tests that ask a policy directly, and the context that it is built with."""

from __future__ import annotations

from vcore.interfaces.scheduling import SchedulingContext
from vcore.testing import FakeRequest as View

__all__ = ["CONTEXT", "View"]

CONTEXT = SchedulingContext(max_num_seqs=4, max_num_batched_tokens=16, block_size=4, num_blocks=10)
