"""`PrefixAwarePolicy`: requests whose prefix is cached before others, so that it is used while it is there."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence, Set
from contextlib import closing

from vcore.interfaces.scheduling import QueueingPolicy, RequestView, SchedulingContext
from vcore_policies.scheduling.options import PrefixAwareOptions
from vcore_policies.scheduling.prefix_tree import PrefixNode, PrefixTree

__all__ = ["PrefixAwarePolicy"]

_Entry = tuple[int, PrefixNode]  # minus the cached blocks when it was made


class PrefixAwarePolicy(QueueingPolicy):
    """The two orders of Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs", NeurIPS
    2024, section 3, over a tree of the waiting requests' prefixes:

    - ``longest``: the longest cached prefix first.
    - ``depth_first``: all below a node of the tree before its siblings, the node with most requests first. With all
      requests there from the start it finds as much in the cache as any order can (theorem 3.1 there).

    The order is not computed anew in each step. A request joins the tree on arrival; one that is admitted tells what
    the cache is about to have, for all that share its prefix at once. What was evicted meanwhile shows when a request
    comes to the front, where its prefix is looked up: if less is there than was thought, its node falls back. Below
    a prefix the depth-first order decides; where requests end at one node, arrival does.

    When blocks run out, the latest to arrive is preempted. Nobody is preempted for another.

    Starvation bound: `patience` admissions in a row may pass over the request that arrived first.
    """

    def __init__(self, *, options: PrefixAwareOptions | None, context: SchedulingContext) -> None:
        """See `PrefixAwareOptions`."""
        options = options or PrefixAwareOptions()
        self.patience = options.patience
        self._longest_first = options.order == "longest"
        self._block_size = context.block_size
        self._tree = PrefixTree()
        self._offered: PrefixNode | None = None
        """Where the request is that a walk named last."""
        self._heap: list[_Entry] = []
        """Nodes by cached blocks, for ``longest``."""

    def on_waiting(self, request: RequestView) -> None:
        """It joins the tree."""
        hashes = self._hashes(request)
        self._tree.add(request, hashes)
        if self._longest_first and hashes:
            self._mark(hashes, request.num_cached_tokens() // self._block_size)

    def on_left(self, request: RequestView) -> None:
        """It leaves the tree; if a walk has just named it, it is served, and the walk may not go on."""
        if self._offered is not None and request in self._offered.queue:
            self._tree.serve(self._offered)
        self._tree.discard(request)

    def on_admitted(self, requests: Sequence[RequestView]) -> None:
        """What they compute will be in the cache."""
        self._will_be_cached(requests)

    def on_finished(self, requests: Sequence[RequestView]) -> None:
        """What they computed is in the cache, what they generated as well."""
        self._will_be_cached(requests)

    def walk(self, now: float) -> Iterator[RequestView]:
        """The tree in the order that was chosen."""
        named: set[int] = set()
        if self._longest_first:
            yield from self._walk_cached(named)
        yield from self._walk_below(self._tree.root, named)

    def _walk_cached(self, named: set[int]) -> Iterator[RequestView]:
        """Below each node with something cached, those with most first."""
        met: dict[int, PrefixNode] = {}
        try:
            while self._heap:
                negative, node = heapq.heappop(self._heap)
                if not node.weight or node.cached != -negative or node.serial in met:
                    continue
                met[node.serial] = node
                with closing(self._walk_below(node, named)) as below:
                    is_seen = False
                    for request in below:
                        # All below have these blocks in common, so one look-up tells of all.
                        if not is_seen and not self._holds(node, request):
                            del met[node.serial]
                            break
                        is_seen = True
                        named.add(request.arrival_index)
                        yield request
        finally:
            for node in met.values():
                self._offer(node)

    def _holds(self, node: PrefixNode, request: RequestView) -> bool:
        """Whether what is thought to be cached of the node is, by one of its requests; if not it falls back."""
        cached = request.num_cached_tokens() // self._block_size
        if cached >= node.cached:
            return True
        node.cached = cached
        self._offer(node)
        return False

    def _walk_below(self, top: PrefixNode, named: Set[int]) -> Generator[RequestView]:
        """Depth first, those who are not named yet."""
        stack = [_alone(top)]
        try:
            while stack:
                node = next(stack[-1], None)
                if node is None:
                    stack.pop()
                    continue
                with closing(node.queue.walk()) as queue:
                    for request in queue:
                        if request.arrival_index not in named:
                            self._offered = node
                            yield request
                stack.append(node.heaviest_first())
        finally:
            self._offered = None
            for children in stack:
                children.close()

    def _will_be_cached(self, requests: Sequence[RequestView]) -> None:
        if self._longest_first and len(self._tree):
            for request in requests:
                hashes = request.prefix_hashes()
                self._mark(hashes, len(hashes))

    def _mark(self, hashes: Sequence[bytes], num_cached: int) -> None:
        for node in self._tree.mark(hashes, num_cached):
            self._offer(node)

    def _offer(self, node: PrefixNode) -> None:
        if node.cached and node.weight:
            heapq.heappush(self._heap, (-node.cached, node))
            if len(self._heap) > 4 * len(self._tree) + 64:
                self._heap = [(-one.cached, one) for one in {one for _, one in self._heap} if one.cached and one.weight]
                heapq.heapify(self._heap)

    def _hashes(self, request: RequestView) -> Sequence[bytes]:
        """Of the blocks that can be hit: one token is always computed."""
        return request.prefix_hashes()[: (request.num_tokens - 1) // self._block_size]


def _alone(node: PrefixNode) -> Generator[PrefixNode]:
    yield node
