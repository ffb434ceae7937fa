"""`Lifecycle`: the one place where a request starts, is preempted, and ends.

Owns the live requests, and what of their endings is not told yet. Does not know in which order
anything is computed.
"""

from __future__ import annotations

from collections import deque

from vcore.engine.request import FinishReason, RequestStatus
from vcore.engine.step_output import Finished
from vcore.interfaces.scheduling import RequestView
from vcore.kv_cache.manager import KVCacheManager
from vcore.kv_cache.prefix import PrefixMatch
from vcore.scheduler.checked_policy import CheckedPolicy
from vcore.scheduler.plan import StepRecord
from vcore.scheduler.request import Request
from vcore.scheduler.row_table import NEVER, RowTable
from vcore.scheduler.stop_checker import StopChecker
from vcore.scheduler.waiting_queue import WaitingQueue

__all__ = ["Lifecycle"]


class Lifecycle:
    """Moves requests between waiting, running and finished, with their rows and blocks."""

    def __init__(self, max_num_seqs: int, kv: KVCacheManager, policy: CheckedPolicy) -> None:
        """No requests.

        Args:
            max_num_seqs: how many may run at the same time.
            kv: gives blocks and takes them back.
            policy: orders those who wait, and is told of endings.
        """
        self.kv = kv
        self.policy = policy
        self.table = RowTable(max_num_seqs)
        self.stops = StopChecker(max_num_seqs)
        self.waiting = WaitingQueue(policy)
        self.requests: dict[str, Request] = {}
        """All that have not ended."""
        self.in_flight: deque[StepRecord] = deque()
        """Steps that are launched and not collected, the oldest first."""
        self.num_preemptions = 0
        self.fruitless_preemptions = 0
        """Preemptions since any request got a token."""
        self._ended: dict[str, Finished] = {}
        self._ended_views: list[RequestView] = []

    def add(self, request: Request) -> None:
        """A request arrives and waits."""
        self.requests[request.request_id] = request
        self.waiting.push(request)

    def start(self, request: Request, match: PrefixMatch, num_columns: int) -> None:
        """A waiting request gets a row, its cached beginning and `num_columns` columns of blocks more."""
        request.become(RequestStatus.RUNNING)
        self.kv.admit(request.blocks, match, num_columns)
        size = self.kv.block_size
        num_hit = match.num_columns
        row = self.table.take(request, num_hit * size)
        self.table.capacity[row] = (num_hit + num_columns) * size
        self.table.publish_at[row] = (num_hit + 1) * size if self.kv.prefix_caching else NEVER
        if self.kv.windows:
            self.table.pass_at[row] = self.kv.next_pass(request.blocks)
        self.stops.set_row(row, request)

    def publish(self, request: Request, num_computed: int) -> None:
        """Make the full blocks among the first `num_computed` tokens of a running request findable."""
        num_published = self.kv.publish(request.blocks, request.token_ids, num_computed)
        self.table.publish_at[request.row] = (num_published + 1) * self.kv.block_size

    def leave_behind(self, request: Request) -> list[tuple[int, int, int]]:
        """Take from a running request the blocks that none of its queries sees any more; the caller releases them.

        Returns:
            Group, column and block of each.
        """
        computed = int(self.table.num_computed[request.row])
        self._publish_launched(request, computed)
        taken = self.kv.take_passed(request.blocks, computed)
        self.table.pass_at[request.row] = self.kv.next_pass(request.blocks)
        return taken

    def preempt(self, request: Request) -> None:
        """A running request gives up its row and blocks, keeps its tokens, and waits again."""
        row = request.row
        request.num_in_flight = int(self.table.num_tokens[row] - self.table.num_known[row])
        if self.table.pools[row] and self.table.num_computed[row] == self.table.num_tokens[row]:
            request.num_in_flight = 1  # its vector
        self._leave_row(request, finished=False)
        request.become(RequestStatus.PREEMPTED)
        request.num_preemptions += 1
        self.num_preemptions += 1
        self.fruitless_preemptions += 1
        self.waiting.push(request)

    def end(
        self, request: Request, reason: FinishReason, stop_reason: int | str | None = None, *, failed: bool = False
    ) -> None:
        """A request ends, wherever it is; `drain_ended` will tell.

        Args:
            request: which.
            reason: why.
            stop_reason: see `vcore.outputs.CompletionOutput`.
            failed: whether a step of it failed, so that nothing more of what it computed may be found again.
        """
        if request.status is RequestStatus.RUNNING:
            if failed:
                self.table.publish_at[request.row] = NEVER
            self._leave_row(request, finished=True)
        else:
            self.waiting.discard(request)
        request.become(RequestStatus.FINISHED)
        del self.requests[request.request_id]
        self._ended[request.request_id] = Finished(reason, stop_reason, request.num_preemptions)
        if self.policy.hears_finished:
            self._ended_views.append(request.view)

    @property
    def has_untold(self) -> bool:
        """Whether a request ended that no `StepOutput` has told of."""
        return bool(self._ended)

    def drain_ended(self) -> dict[str, Finished]:
        """Requests that ended since the last call; the policy is told of them now."""
        ended, self._ended = self._ended, {}
        if self._ended_views:
            views, self._ended_views = self._ended_views, []
            self.policy.on_finished(views)
        return ended

    def _leave_row(self, request: Request, *, finished: bool) -> None:
        self._publish_launched(request, int(self.table.num_computed[request.row]))
        self.kv.release(request.blocks, finished=finished)
        self.table.give_back(request)

    def _publish_launched(self, request: Request, computed: int) -> None:
        """With several steps in flight the last tokens may have become known since the last plan."""
        if computed < self.table.publish_at[request.row]:
            return
        self.publish(request, computed)
        filled = self.kv.settle(request.blocks)
        if self.in_flight:
            self.in_flight[-1].filled.extend(filled)
