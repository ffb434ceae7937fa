"""The virtual token counter, against its algorithm written down once more."""

from __future__ import annotations

import random

import pytest
from policy_view import CONTEXT, View
from vcore_policies.scheduling.fair_share import FairSharePolicy
from vcore_policies.scheduling.options import FairShareOptions


class Server:
    """Admits one request after another, as the core does, and lets those that run generate."""

    def __init__(self, **options: object) -> None:
        self.policy = FairSharePolicy(options=FairShareOptions(**options), context=CONTEXT)  # type: ignore[arg-type]
        self.running: list[View] = []

    def arrive(self, tenant: str | None, prompt: int = 10, **fields: object) -> View:
        view = View(tenant=tenant, num_prompt_tokens=prompt, **fields)  # type: ignore[arg-type]
        self.policy.on_waiting(view)
        return view

    def admit(self, count: int, skipped: set[int] = frozenset()) -> list[View]:  # type: ignore[assignment]
        """A step: the first `count` that are not passed over."""
        admitted: list[View] = []
        walk = self.policy.walk(0.0)
        while len(admitted) < count and (view := next(walk, None)) is not None:
            if view.arrival_index not in skipped:
                self.policy.on_left(view)
                admitted.append(view)  # type: ignore[arg-type]
        walk.close()  # type: ignore[attr-defined]
        self.policy.on_admitted(admitted)
        self.running += admitted
        return admitted

    def generate(self, count: int) -> None:
        for view in self.running:
            view.num_output_tokens += count

    def finish(self, view: View) -> None:
        self.running.remove(view)
        self.policy.on_finished([view])

    def counter(self, tenant: str | None) -> float:
        account = self.policy._accounts[tenant]
        account.charge_outputs(self.policy._output_weight, -1)
        account.charge_outputs(self.policy._output_weight, -2)
        return account.counter


class Oracle:
    """Algorithm 2 of the paper, by a scan of everything."""

    def __init__(self) -> None:
        self.counters: dict[str | None, float] = {}
        self.waiting: list[View] = []
        self.charged: dict[int, int] = {}
        self.last: str | None = None

    def arrive(self, view: View) -> None:
        self.counters.setdefault(view.tenant, 0.0)
        tenants = {other.tenant for other in self.waiting}
        if view.tenant not in tenants:
            if tenants:
                lift = min(self.counters[tenant] for tenant in tenants)
            else:
                lift = self.counters.get(self.last, 0.0)
            self.counters[view.tenant] = max(self.counters[view.tenant], lift)
        self.waiting.append(view)

    def settle(self, running: list[View]) -> None:
        for view in running:
            self.counters[view.tenant] += 2.0 * (view.num_output_tokens - self.charged[view.arrival_index])
            self.charged[view.arrival_index] = view.num_output_tokens

    def leave(self, view: View) -> None:
        self.waiting.remove(view)
        if all(other.tenant != view.tenant for other in self.waiting):
            self.last = view.tenant

    def least(self) -> float:
        return min(self.counters[view.tenant] for view in self.waiting)

    def first_of(self, tenant: str | None) -> View:
        return min((v for v in self.waiting if v.tenant == tenant), key=lambda v: v.arrival_index)


@pytest.mark.parametrize("seed", range(12))
def test_it_serves_as_the_algorithm_does(seed: int) -> None:
    rng = random.Random(seed)
    server, oracle = Server(), Oracle()
    for _ in range(250):
        kind = rng.choice(["arrive", "arrive", "admit", "generate", "finish", "abort"])
        if kind == "arrive":
            oracle.settle(server.running)
            oracle.arrive(server.arrive(rng.choice("aaaabc"), rng.randint(1, 30)))
        elif kind == "admit":
            oracle.settle(server.running)
            for view in server.admit(rng.randint(1, 3)):
                assert oracle.counters[view.tenant] == oracle.least()
                assert view is oracle.first_of(view.tenant)
                oracle.leave(view)
                oracle.counters[view.tenant] += view.num_prompt_tokens
                oracle.charged[view.arrival_index] = 0
        elif kind == "generate":
            server.generate(rng.randint(1, 5))
        elif kind == "finish" and server.running:
            oracle.settle(server.running)
            server.finish(rng.choice(server.running))
        elif kind == "abort" and oracle.waiting:
            view = rng.choice(oracle.waiting)
            oracle.leave(view)
            server.policy.on_left(view)
            server.policy.on_finished([view])
    oracle.settle(server.running)
    for tenant, counter in oracle.counters.items():
        assert server.counter(tenant) == pytest.approx(counter)


def test_who_comes_back_from_idleness_gets_no_credit() -> None:
    server = Server()
    server.arrive("early", 5)
    server.admit(1)
    for _ in range(40):
        server.arrive("busy")
    for _ in range(20):
        server.admit(1)
    for _ in range(20):
        server.arrive("early")
    served = [server.admit(1)[0].tenant for _ in range(20)]
    assert served.count("early") == 10


def test_a_heavy_tenant_gets_what_the_others_leave() -> None:
    server = Server()
    for _ in range(30):
        server.arrive("heavy", 30)
        server.arrive("light", 10)
    served = [server.admit(1)[0].tenant for _ in range(32)]
    assert served.count("light") == pytest.approx(24, abs=1)
    server = Server()
    for _ in range(5):
        server.arrive("alone")
    assert len(server.admit(5)) == 5


def test_weights_are_shares() -> None:
    server = Server(weights={"gold": 3.0})
    for _ in range(40):
        server.arrive("gold")
        server.arrive("plain")
    served = [server.admit(1)[0].tenant for _ in range(40)]
    assert served.count("gold") == pytest.approx(30, abs=1)


def test_generated_tokens_are_charged_as_they_come() -> None:
    server = Server()
    for _ in range(3):
        server.arrive("wordy")
        server.arrive("brief")
    first = server.admit(2)
    assert {view.tenant for view in first} == {"wordy", "brief"}
    next(view for view in first if view.tenant == "wordy").num_output_tokens = 50
    assert [view.tenant for view in server.admit(2)] == ["brief", "brief"]
    assert server.counter("wordy") == 10 + 2 * 50


def test_one_that_is_passed_over_holds_up_nobody_and_keeps_its_place() -> None:
    server = Server()
    blocked, next_of_a, of_b = server.arrive("a"), server.arrive("a"), server.arrive("b")
    assert server.admit(2, {blocked.arrival_index}) == [next_of_a, of_b]
    assert server.admit(1) == [blocked]
    all_blocked = server.arrive("a")
    assert server.admit(1, {all_blocked.arrival_index}) == []
    assert server.admit(1) == [all_blocked]


def test_a_preempted_request_is_charged_once_and_goes_before_later_ones() -> None:
    server = Server()
    victim = server.arrive("a")
    later = server.arrive("a")
    server.admit(1)
    victim.num_output_tokens, victim.num_preemptions = 4, 1
    server.policy.on_waiting(victim)
    server.running.remove(victim)
    assert server.admit(2) == [victim, later]
    server.finish(victim)
    assert server.counter("a") == 10 + 2 * 4 + 10


def test_requests_without_a_tenant_share_an_account() -> None:
    server = Server()
    for _ in range(20):
        server.arrive(None)
        server.arrive("named")
    served = [server.admit(1)[0].tenant for _ in range(20)]
    assert served.count(None) == 10


def test_the_victim_is_the_latest_of_the_tenant_that_was_served_most() -> None:
    server = Server()
    running = [server.arrive(tenant, prompt) for tenant, prompt in (("a", 50), ("b", 9), ("a", 50), ("b", 9))]
    server.admit(4)
    assert server.policy.pick_victim(running) == 2
    assert server.policy.order_running(running, 0.0) == [1, 3, 0, 2]
    running[2].num_preemptions = running[0].num_preemptions = 1
    assert server.policy.pick_victim(running) == 3
    for view in running:
        view.num_preemptions = 2
    assert server.policy.pick_victim(running) == 3


def test_tenants_that_went_are_forgotten_without_a_difference() -> None:
    server = Server(max_tenants=10)
    for index in range(2000):
        view = server.arrive(f"t{index}", 10)
        server.admit(1)
        server.finish(view)
        assert len(server.policy._accounts) <= 2 * 10 + 65
    server.arrive("t0")
    server.arrive("new")
    assert server.counter("t0") == server.counter("new")


def test_heaps_do_not_grow_with_what_went() -> None:
    server = Server()
    stays = [server.arrive(f"s{index}", 1) for index in range(5)]
    for _ in range(2000):
        server.policy.on_left(server.arrive("comes"))
        for view in server.admit(5):
            view.num_preemptions += 1
            server.running.remove(view)
            server.policy.on_waiting(view)
    assert len(stays) == 5
    assert len(server.policy._heap) < 200
