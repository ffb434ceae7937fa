"""The tree of waiting prefixes and the orders through it, against naive ones."""

from __future__ import annotations

import hashlib
import inspect
import random
import sys
from collections.abc import Sequence
from typing import Literal

import pytest
from policy_view import CONTEXT, View
from vcore_policies.scheduling.options import PrefixAwareOptions
from vcore_policies.scheduling.prefix_aware import PrefixAwarePolicy

SIZE = CONTEXT.block_size


def hashes(blocks: str) -> tuple[bytes, ...]:
    """Chained, one a letter."""
    found: list[bytes] = []
    for letter in blocks:
        found.append(hashlib.sha256((found[-1] if found else b"") + letter.encode()).digest())
    return tuple(found)


class Server:
    """A policy, who waits, and a cache of prefixes."""

    def __init__(self, order: Literal["longest", "depth_first"] = "longest") -> None:
        self.policy = PrefixAwarePolicy(options=PrefixAwareOptions(order=order), context=CONTEXT)
        self.cache: set[bytes] = set()
        self.chains: dict[bytes, set[bytes]] = {}
        self.waiting: list[CachedView] = []

    def arrive(self, blocks: str) -> CachedView:
        view = CachedView(self.cache, blocks)
        self.waiting.append(view)
        self.policy.on_waiting(view)
        return view

    def parents(self, one: bytes) -> set[bytes]:
        """All shorter prefixes of one that was admitted."""
        return self.chains[one]

    def leave(self, view: CachedView) -> None:
        self.waiting.remove(view)
        self.policy.on_left(view)

    def admit(self, count: int, skipped: Sequence[CachedView] = ()) -> list[CachedView]:
        """A step: what is admitted is in the cache after it."""
        admitted: list[CachedView] = []
        walk = self.policy.walk(0.0)
        while len(admitted) < count and (view := next(walk, None)) is not None:
            assert isinstance(view, CachedView)
            if view not in skipped:
                self.leave(view)
                admitted.append(view)
        walk.close()  # type: ignore[attr-defined]
        for view in admitted:
            self.cache |= set(view.hashes)
            self.chains |= {one: set(view.hashes[:index]) for index, one in enumerate(view.hashes)}
        self.policy.on_admitted(admitted)
        return admitted

    def all(self) -> list[CachedView]:
        return list(self.policy.walk(0.0))  # type: ignore[arg-type]


class CachedView(View):
    """Its prefix is looked up when asked; a block more than it has full ones makes room for the last token."""

    def __init__(self, cache: set[bytes], blocks: str) -> None:
        super().__init__(num_prompt_tokens=SIZE * len(blocks) + 1, hashes=hashes(blocks))
        self.blocks = blocks
        self.cache = cache

    def __repr__(self) -> str:
        return self.blocks

    def num_cached_tokens(self) -> int:
        count = 0
        for one in self.hashes:
            if one not in self.cache:
                break
            count += 1
        return count * SIZE


def names(views: Sequence[CachedView]) -> list[str]:
    return [view.blocks for view in views]


def test_the_longest_cached_prefix_goes_first() -> None:
    server = Server()
    server.cache |= set(hashes("abc")) | set(hashes("xy"))
    for blocks in ("q", "xyz", "abq", "abcd", "aqq"):
        server.arrive(blocks)
    order = server.all()
    assert [view.num_cached_tokens() // SIZE for view in order] == [3, 2, 2, 1, 0]
    assert names(order)[::3] == ["abcd", "aqq"]


def test_who_is_admitted_brings_up_those_that_share_its_prefix() -> None:
    server = Server()
    for blocks in ("q", "abc", "r", "abd", "s", "ae"):
        server.arrive(blocks)
    # Nothing is cached, so it begins with the prefix that most wait for, and there with the shared beginning of two.
    assert names(server.admit(1)) == ["abc"]
    assert names(server.all()) == ["abd", "ae", "q", "r", "s"]
    server.leave(next(view for view in server.waiting if view.blocks == "abd"))
    assert names(server.all()) == ["ae", "q", "r", "s"]


def test_what_was_evicted_falls_back() -> None:
    server = Server()
    server.cache |= set(hashes("abc")) | set(hashes("xy"))
    server.arrive("abcd")
    server.arrive("abce")
    server.arrive("xyz")
    server.cache -= set(hashes("abc")[1:])
    assert names(server.all()) == ["xyz", "abcd", "abce"]
    server.cache.clear()
    assert sorted(names(server.all())) == ["abcd", "abce", "xyz"]


def test_one_that_is_passed_over_keeps_its_place() -> None:
    server = Server()
    server.cache |= set(hashes("abc"))
    server.arrive("xyz")
    blocked = server.arrive("abcd")
    assert names(server.admit(1, [blocked])) == ["xyz"]
    assert names(server.admit(1)) == ["abcd"]


@pytest.mark.parametrize("order", ["longest", "depth_first"])
def test_prompts_without_a_full_block_go_by_arrival(order: Literal["longest", "depth_first"]) -> None:
    server = Server(order)
    arrived = [server.arrive("") for _ in range(5)]
    assert server.all() == arrived
    assert server.admit(2) == arrived[:2]


def test_without_a_cache_all_go_by_arrival() -> None:
    policy = PrefixAwarePolicy(options=None, context=CONTEXT)
    arrived = [View(num_prompt_tokens=50) for _ in range(5)]
    for view in reversed(arrived):
        policy.on_waiting(view)
    assert list(policy.walk(0.0)) == arrived


@pytest.mark.parametrize("seed", range(15))
def test_whoever_is_next_has_the_longest_cached_prefix_there_is(seed: int) -> None:
    rng = random.Random(seed)
    server = Server()
    for _ in range(150):
        kind = rng.choice(["arrive", "arrive", "admit", "abort", "evict"])
        if kind == "arrive":
            server.arrive("".join(rng.choice("ab") for _ in range(rng.randint(0, 7))))
        elif kind == "admit":
            skipped = rng.sample(server.waiting, min(len(server.waiting), rng.randint(0, 2)))
            longest = sorted((v.num_cached_tokens() for v in server.waiting if v not in skipped), reverse=True)
            # Within a step nothing new is in the cache yet.
            assert [view.num_cached_tokens() for view in _peek(server, skipped, 2)] == longest[:2]
            server.admit(2, skipped)
        elif kind == "abort" and server.waiting:
            server.leave(rng.choice(server.waiting))
        elif kind == "evict" and server.cache:
            # Of a chain the last goes first, as with every sensible order of eviction.
            leaves = [one for one in server.cache if all(one not in server.parents(other) for other in server.cache)]
            server.cache.discard(rng.choice(sorted(leaves)))
        assert len(server.policy._tree) == len(server.waiting)
    assert sorted(names(server.all())) == sorted(names(server.waiting))


def _peek(server: Server, skipped: Sequence[CachedView], count: int) -> list[CachedView]:
    return [view for view in server.all() if view not in skipped][:count]


@pytest.mark.parametrize("seed", range(15))
def test_depth_first_finishes_a_prefix_before_its_siblings(seed: int) -> None:
    rng = random.Random(seed)
    server = Server("depth_first")
    for _ in range(60):
        server.arrive("".join(rng.choice("abc") for _ in range(rng.randint(1, 5))))
    order = names(server.all())
    check_depth_first(order, 0)
    served = []
    while server.waiting:
        served += names(server.admit(rng.randint(1, 4)))
    check_depth_first(served, 0)


def check_depth_first(order: list[str], depth: int) -> None:
    """All with an equal next block stand together; groups by size; those without a further block first."""
    ended = [blocks for blocks in order if len(blocks) == depth]
    assert order[: len(ended)] == ended
    groups: list[list[str]] = []
    for blocks in order[len(ended) :]:
        if groups and groups[-1][0][: depth + 1] == blocks[: depth + 1]:
            groups[-1].append(blocks)
        else:
            groups.append([blocks])
    heads = [group[0][: depth + 1] for group in groups]
    assert len(set(heads)) == len(heads), f"{heads} come apart"
    sizes = [len(group) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    for group in groups:
        check_depth_first(group, depth + 1)


def test_depth_first_stays_where_it_is_when_others_grow() -> None:
    server = Server("depth_first")
    for blocks in ("ax", "ay", "az", "bx", "by"):
        server.arrive(blocks)
    assert names(server.admit(1)) == ["ax"]
    for blocks in ("bz", "bw", "bv"):
        server.arrive(blocks)
    assert names(server.admit(3)) == ["ay", "az", "bx"]


@pytest.mark.parametrize("order", ["longest", "depth_first"])
def test_a_long_chain_of_prefixes_is_no_deep_recursion(order: Literal["longest", "depth_first"]) -> None:
    server, longest = Server(order), 300
    chain = hashes("".join(chr(97 + index % 26) for index in range(longest)))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + longest // 2)
    try:
        for length in range(longest, 0, -1):
            view = CachedView(server.cache, "")
            view.hashes, view.num_prompt_tokens = chain[:length], SIZE * length + 1
            server.waiting.append(view)
            server.policy.on_waiting(view)
        assert [len(view.hashes) for view in server.all()] == list(range(1, longest + 1))
        server.admit(longest)
    finally:
        sys.setrecursionlimit(limit)
    assert not server.waiting


def test_nothing_is_kept_of_those_who_come_and_go() -> None:
    server = Server()
    server.arrive("abcd")
    for index in range(1000):
        view = server.arrive("ab" + "".join(chr(65 + int(digit)) for digit in str(index)))
        server.policy.on_admitted([view])
        server.cache |= set(view.hashes)
        server.leave(view)
    root = server.policy._tree.root
    nodes, entries = [root], 0
    for node in nodes:
        nodes += node.children.values()
        entries += len(node._heap)
    assert len(nodes) < 10
    assert entries < 300
    assert len(server.policy._heap) < 100
