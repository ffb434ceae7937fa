"""What routing policies see of a simulation: `SimulatedArrival` of a request, `SimulatedReplica` of a replica."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.engine.request import EngineRequest
from vcore.interfaces.routing import ArrivalView
from vcore.simulate.replica import Replica
from vcore.simulate.virtual_prompt import VirtualPrompt

__all__ = ["SimulatedArrival", "SimulatedReplica"]


class SimulatedArrival:
    """A request as it arrives, for `vcore.interfaces.ArrivalView`."""

    __slots__ = ("_hashes", "_prompt", "_request")

    def __init__(self, request: EngineRequest) -> None:
        """Args:
        request: whose prompt is a `VirtualPrompt`.
        """
        assert isinstance(request.prompt_token_ids, VirtualPrompt), "a simulated request has a virtual prompt"
        self._request = request
        self._prompt = request.prompt_token_ids
        self._hashes: tuple[bytes, ...] | None = None

    @property
    def arrival_time(self) -> float:
        return self._request.arrival_time

    @property
    def num_prompt_tokens(self) -> int:
        return self._prompt.num_tokens

    @property
    def max_tokens(self) -> int:
        return self._request.max_tokens

    @property
    def priority(self) -> int:
        return self._request.params.priority

    @property
    def tenant(self) -> str | None:
        return self._request.params.tenant

    @property
    def ttft_target_s(self) -> float | None:
        return self._request.params.ttft_target_s

    @property
    def itl_target_s(self) -> float | None:
        return self._request.params.itl_target_s

    @property
    def expected_tokens(self) -> int | None:
        return self._request.params.expected_tokens

    def prefix_hashes(self) -> Sequence[bytes]:
        if self._hashes is None:
            self._hashes = tuple(self._prompt.hashes)
        return self._hashes


class SimulatedReplica:
    """A replica as it is now, for `vcore.interfaces.ReplicaView`."""

    __slots__ = ("_replica",)

    def __init__(self, replica: Replica) -> None:
        """Args:
        replica: that is looked at.
        """
        self._replica = replica

    @property
    def num_unfinished(self) -> int:
        return self._replica.num_unfinished

    @property
    def num_running(self) -> int:
        return self._replica.scheduler.num_running

    @property
    def num_free_blocks(self) -> int:
        return self._replica.scheduler.num_free_blocks

    def num_cached_tokens(self, request: ArrivalView) -> int:
        return self._replica.scheduler.num_cached_tokens(request.num_prompt_tokens, request.prefix_hashes())
