"""`PrefixTree`: waiting requests by their prefixes, as a compressed tree of full blocks.

Hashes of blocks are chained, so one hash stands for all blocks up to it. A node therefore needs no labels of its edge:
whether a request passes through the whole edge shows at its end, and where it leaves the edge is found by bisection:

    root --- 0 1 2 3 --- 4 5             request ... 0 1 2 3 4 7   leaves the edge to (4 5) after 4: that is split
                     \\-- 6
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence

from vcore.interfaces.scheduling import RequestView
from vcore_policies.scheduling.request_heap import RequestHeap

__all__ = ["PrefixNode", "PrefixTree"]

_ChildEntry = tuple[int, "PrefixNode"]  # minus the weight when it was made


class PrefixNode:
    """A prefix at which requests end or part."""

    __slots__ = ("_heap", "cached", "children", "current", "depth", "hashes", "parent", "queue", "serial", "weight")

    def __init__(self, parent: PrefixNode | None, hashes: Sequence[bytes], depth: int, serial: int) -> None:
        """A node without requests.

        Args:
            parent: a shorter prefix; None for the root.
            hashes: of a request that has this prefix, or more.
            depth: blocks of the prefix.
            serial: unique in the tree; the older breaks ties.
        """
        self.parent = parent
        self.hashes = hashes
        self.depth = depth
        self.serial = serial
        self.children: dict[bytes, PrefixNode] = {}
        """By the first hash beyond this prefix."""
        self.queue = RequestHeap()
        """Requests that have no full block more, by arrival."""
        self.weight = 0
        """Requests here and below."""
        self.cached = 0
        """Blocks of the prefix that are thought to be cached, if that is more than the parent's `depth`; or 0."""
        self.current: PrefixNode | None = None
        """The child that was served last, which goes on while anybody is left there."""
        self._heap: list[_ChildEntry] = []

    def __lt__(self, other: PrefixNode) -> bool:
        """Breaks the ties of heaps."""
        return self.serial < other.serial

    def weigh(self, change: int) -> None:
        """The weight changes."""
        self.weight += change
        if change > 0 and self.parent is not None:
            self.parent.offer(self)

    def offer(self, child: PrefixNode) -> None:
        """The weight of a child has grown, or the child is new."""
        heapq.heappush(self._heap, (-child.weight, child))
        if len(self._heap) > 2 * len(self.children) + 64:
            self._heap = [(-one.weight, one) for one in self.children.values()]
            heapq.heapify(self._heap)

    def heaviest_first(self) -> Generator[PrefixNode]:
        """The children, each once: the current one, then by weight. They may change while this goes on."""
        met: dict[int, PrefixNode] = {}
        if self.current is not None and self._has(self.current):
            met[self.current.serial] = self.current
            yield self.current
        try:
            while self._heap:
                weight, child = heapq.heappop(self._heap)
                if not self._has(child) or child.serial in met:
                    continue
                if -weight != child.weight:  # it has lost requests since
                    heapq.heappush(self._heap, (-child.weight, child))
                    continue
                met[child.serial] = child
                yield child
        finally:
            for child in met.values():
                if self._has(child):
                    self.offer(child)

    def _has(self, child: PrefixNode) -> bool:
        return child.weight > 0 and child.parent is self


class PrefixTree:
    """Adds and removes a request in O(nodes on its path * log)."""

    def __init__(self) -> None:
        """No requests."""
        self._num_nodes = 0
        self.root = self._node(None, (), 0)
        self._places: dict[int, PrefixNode] = {}
        """By arrival, where each request is."""

    def __len__(self) -> int:
        """Requests in the tree."""
        return len(self._places)

    def __contains__(self, request: RequestView) -> bool:
        return request.arrival_index in self._places

    def add(self, request: RequestView, hashes: Sequence[bytes]) -> None:
        """Put in a request, which is not there, at the end of its prefix."""
        node, common = self._descend(hashes)[-1]
        if common < node.depth:
            node = self._split(node, common)
        if node.depth < len(hashes):
            child = self._node(node, hashes, len(hashes))
            node.children[hashes[node.depth]] = child
            node = child
        node.queue.push(0, request)
        self._places[request.arrival_index] = node
        for one in path(node):
            one.weigh(1)

    def discard(self, request: RequestView) -> None:
        """Take out a request; nodes without any go with it."""
        node = self._places.pop(request.arrival_index, None)
        if node is None:
            return
        node.queue.discard(request)
        for one in path(node):
            one.weigh(-1)
            if not one.weight and one.parent is not None:
                del one.parent.children[one.hashes[one.parent.depth]]

    def serve(self, node: PrefixNode) -> None:
        """A request at `node` was served: those that share its prefix go on."""
        for one in path(node):
            if one.parent is not None:
                one.parent.current = one

    def mark(self, hashes: Sequence[bytes], num_cached: int) -> list[PrefixNode]:
        """The first `num_cached` of these blocks are in the cache.

        Returns:
            Nodes that are thought to have more cached than before.
        """
        grown: list[PrefixNode] = []
        for node, common in self._descend(hashes):
            cached = min(common, num_cached)
            if node.parent is not None and cached > max(node.cached, node.parent.depth):
                node.cached = cached
                grown.append(node)
        return grown

    def _descend(self, hashes: Sequence[bytes]) -> list[tuple[PrefixNode, int]]:
        """The nodes along a path from the root, each with how many blocks are in common; all but the last whole."""
        node, found = self.root, [(self.root, 0)]
        while node.depth < len(hashes):
            child = node.children.get(hashes[node.depth])
            if child is None:
                break
            common = _num_common(child.hashes, hashes, node.depth + 1, min(child.depth, len(hashes)))
            found.append((child, common))
            if common < child.depth:
                break
            node = child
        return found

    def _split(self, node: PrefixNode, depth: int) -> PrefixNode:
        """Put a node into the edge to `node`."""
        parent = node.parent
        assert parent is not None
        middle = self._node(parent, node.hashes, depth)
        middle.weight = node.weight
        parent.children[node.hashes[parent.depth]] = middle
        if parent.current is node:
            parent.current, middle.current = middle, node
        parent.offer(middle)
        node.parent = middle
        middle.children[node.hashes[depth]] = node
        middle.offer(node)
        return middle

    def _node(self, parent: PrefixNode | None, hashes: Sequence[bytes], depth: int) -> PrefixNode:
        self._num_nodes += 1
        return PrefixNode(parent, hashes, depth, self._num_nodes)


def path(node: PrefixNode) -> Iterator[PrefixNode]:
    """The node and those above it."""
    one: PrefixNode | None = node
    while one is not None:
        yield one
        one = one.parent


def _num_common(first: Sequence[bytes], second: Sequence[bytes], low: int, high: int) -> int:
    """How many leading chained hashes are equal, which is at least `low` and at most `high`."""
    if first[high - 1] == second[high - 1]:
        return high
    high -= 1
    while low < high:
        middle = (low + high + 1) // 2
        if first[middle - 1] == second[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
