"""`Request`: a request inside the scheduler. `PolicyView`: the same request as policies see it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vcore.engine.request import TRANSITIONS, EngineRequest, RequestStatus
from vcore.kv_cache.manager import KVCacheManager, RequestBlocks

__all__ = ["PolicyView", "Request", "request_of"]


@dataclass(slots=True, eq=False)
class Request:
    """One request, from `Scheduler.add` to its end. While it runs, its counts are in the row table."""

    engine: EngineRequest
    arrival_index: int
    blocks: RequestBlocks
    token_ids: list[int] = field(init=False)
    """Prompt and known output."""
    num_prompt_tokens: int = field(init=False)
    status: RequestStatus = RequestStatus.WAITING
    row: int = 0
    """Its row while it runs."""
    num_in_flight: int = 0
    """Tokens being sampled, or a vector being pooled, in steps that are not collected; kept here only while it is
    preempted."""
    num_preemptions: int = 0
    was_started: bool = False
    prompt_logprobs_told: int = 0
    """Entries of prompt logprobs handed out so far."""
    view: PolicyView = field(init=False)

    def __post_init__(self) -> None:
        self.token_ids = self.engine.prompt_token_ids.copy()
        self.num_prompt_tokens = len(self.token_ids)

    @property
    def request_id(self) -> str:
        """The id, unique among unfinished requests."""
        return self.engine.request_id

    @property
    def max_num_tokens(self) -> int:
        """Prompt and output tokens at which it ends."""
        return self.num_prompt_tokens + self.engine.max_tokens

    @property
    def num_output_tokens(self) -> int:
        """Known output tokens."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def is_finished(self) -> bool:
        """Whether it ended."""
        return self.status is RequestStatus.FINISHED

    @property
    def bypasses_hits(self) -> bool:
        """Whether cached tokens must be computed again, for their logprobs are still to come, or for their mean."""
        if self.engine.pooling is not None:
            return self.engine.pooling == "mean"
        return self.engine.params.prompt_logprobs is not None and self.prompt_logprobs_told < self.num_prompt_tokens - 1

    def become(self, status: RequestStatus) -> None:
        """Change the status; the only place that does."""
        assert status in TRANSITIONS[self.status], f"{self.request_id}: {self.status} to {status}"
        self.status = status


class PolicyView:
    """The `vcore.interfaces.RequestView` of a request: live and read only."""

    __slots__ = ("_cached", "_cached_version", "_kv", "_num_computed", "_request")

    def __init__(self, request: Request, num_computed: NDArray[np.int64], kv: KVCacheManager) -> None:
        """A view.

        Args:
            request: what is seen.
            num_computed: int64 [num_rows]: the row table's counts of computed tokens.
            kv: where cached prefixes are looked up.
        """
        self._request = request
        self._num_computed = num_computed
        self._kv = kv
        self._cached = 0
        self._cached_version = -1

    def __repr__(self) -> str:
        return f"<request {self._request.request_id!r}, {self._request.status.value}>"

    @property
    def request_id(self) -> str:
        """The id."""
        return self._request.engine.request_id

    @property
    def arrival_index(self) -> int:
        """Counts up by one a request."""
        return self._request.arrival_index

    @property
    def arrival_time(self) -> float:
        """Seconds, monotonic."""
        return self._request.engine.arrival_time

    @property
    def priority(self) -> int:
        """Lower is more urgent."""
        return self._request.blocks.priority

    @property
    def tenant(self) -> str | None:
        """Whose request it is."""
        return self._request.engine.params.tenant

    @property
    def ttft_target_s(self) -> float | None:
        """Seconds from arrival to the first token that it wants at most."""
        return self._request.engine.params.ttft_target_s

    @property
    def itl_target_s(self) -> float | None:
        """Mean seconds between tokens that it wants at most."""
        return self._request.engine.params.itl_target_s

    @property
    def expected_tokens(self) -> int | None:
        """Tokens that it says it will generate."""
        engine = self._request.engine
        expected = engine.params.expected_tokens
        return expected if expected is None else min(expected, engine.max_tokens)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self._request.num_prompt_tokens

    @property
    def num_tokens(self) -> int:
        """Prompt and generated tokens that are known."""
        return len(self._request.token_ids)

    @property
    def num_computed_tokens(self) -> int:
        """Tokens whose computation was launched; 0 unless it runs."""
        request = self._request
        return int(self._num_computed[request.row]) if request.status is RequestStatus.RUNNING else 0

    @property
    def num_output_tokens(self) -> int:
        """Generated tokens that are known."""
        # As `Request.num_output_tokens`; some policies ask it of all that run, in every step.
        request = self._request
        return len(request.token_ids) - request.num_prompt_tokens

    @property
    def max_tokens(self) -> int:
        """The most tokens that it may generate."""
        return self._request.engine.max_tokens

    @property
    def num_preemptions(self) -> int:
        """How often it was preempted."""
        return self._request.num_preemptions

    def num_cached_tokens(self) -> int:
        """Tokens of its beginning that are in the cache now; memoised until the cache changes."""
        version = self._kv.pool.version
        if version != self._cached_version:
            self._cached_version = version
            self._cached = self._kv.count_cached(self._request.blocks, self._request.token_ids)
        return self._cached

    def prefix_hashes(self) -> tuple[bytes, ...]:
        """The hash of each full block of the known tokens; none without a prefix cache."""
        if not self._kv.prefix_caching:
            return ()
        # A copy: the chain is the core's.
        return tuple(self._request.blocks.chain.extend(self._request.token_ids))


def request_of(view: object) -> Request | None:
    """The request that `view`, which may be anything that a policy answers, is a view of."""
    return view._request if type(view) is PolicyView else None
