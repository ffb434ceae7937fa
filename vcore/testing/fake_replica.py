"""`FakeReplica`: a replica as a routing policy sees it, for tests that ask a policy directly."""

from __future__ import annotations

from dataclasses import dataclass

from vcore.interfaces.routing import ArrivalView

__all__ = ["FakeReplica"]


@dataclass(eq=False)
class FakeReplica:
    """What `vcore.interfaces.ReplicaView` asks for, all of it settable; `FakeRequest` stands for what arrives."""

    num_unfinished: int = 0
    num_running: int = 0
    num_free_blocks: int = 100
    cached: int = 0
    """What `num_cached_tokens` answers, of any prompt that is as long."""

    def num_cached_tokens(self, request: ArrivalView) -> int:
        """`cached`, or the prompt's length."""
        return min(self.cached, request.num_prompt_tokens)
