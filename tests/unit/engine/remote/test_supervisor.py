"""The supervisor over links that do as they are told: back-off, giving up, closing at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vcore.engine.records import EngineStatus
from vcore.engine.remote.error_message import ErrorMessage
from vcore.engine.remote.link import EngineLink
from vcore.engine.remote.messages import EngineDied, HealthChanged, Ready, StartFailed, StepDone, ToEngine
from vcore.engine.remote.restarts import BackOff, RestartPolicy
from vcore.engine.remote.supervisor import Supervisor
from vcore.engine.step_output import StepOutput
from vcore.errors import EngineDeadError, EngineError, ModelError
from vcore.scheduler.settings import SchedulerStats

READY = Ready(b"{}", 1, 1, (), None, {})
AT_ONCE = RestartPolicy(first_delay=0.0, max_failures=3)


class FakeLink(EngineLink):
    """Says what the test says."""

    stops = 0
    sent: list[ToEngine]

    def _launch(self) -> None:
        self.sent = []

    def send(self, message: ToEngine) -> None:
        self.sent.append(message)

    async def stop(self, grace: float) -> None:
        self._over = True
        self.stops += 1

    says = EngineLink._receive


class World:
    """A supervisor, its links, and what its user hears. `plan`: what each new link says at once."""

    def __init__(self, plan: list[Any], policy: RestartPolicy = AT_ONCE) -> None:
        self.plan = plan
        self.links: list[FakeLink] = []
        self.states: list[str] = []
        self.deaths: list[str] = []
        self.get_ready: Callable[[], Awaitable[None]] = self._nothing
        self.supervisor = Supervisor(self._make_link, policy, self)

    def _make_link(self, *callbacks: Any) -> FakeLink:
        link = FakeLink(*callbacks)
        self.links.append(link)
        if self.plan and (says := self.plan.pop(0)) is not None:
            asyncio.get_running_loop().call_soon(link.says, says)
        return link

    async def _nothing(self) -> None: ...

    async def on_ready(self, ready: Ready) -> None:
        await self.get_ready()

    def on_message(self, message: Any) -> None: ...

    def on_dead(self, reason: str) -> None:
        self.deaths.append(reason)

    def on_status(self, status: EngineStatus) -> None:
        self.states.append(status.state)

    async def until(self, state: str) -> None:
        async with asyncio.timeout(10):
            while self.supervisor.status.state != state:
                await asyncio.sleep(0)


def failed(text: str) -> StartFailed:
    return StartFailed(ErrorMessage("ModelError", text))


def test_back_off_doubles_up_to_its_limit_and_begins_anew_after_a_healthy_run():
    back_off = BackOff(RestartPolicy(first_delay=1.0, max_delay=6.0, healthy_after=60.0, max_failures=9))
    delays = []
    for _ in range(5):
        back_off.engine_ran(3.0, 3.0)
        delays.append(back_off.next_delay())
    assert delays == [1.0, 2.0, 4.0, 6.0, 6.0]
    back_off.engine_ran(60.0, 60.0)
    assert back_off.next_delay() == 1.0


def test_back_off_gives_up_after_failures_in_a_row():
    back_off = BackOff(RestartPolicy(max_failures=2))
    back_off.start_failed()
    assert back_off.next_delay() == 1.0
    back_off.engine_ran(60.0, 60.0)
    back_off.start_failed()
    assert back_off.next_delay() == 1.0
    assert back_off.verdict == ""
    back_off.start_failed()
    assert back_off.next_delay() is None
    assert back_off.verdict.startswith("given up, as the last 2 starts gave no engine")
    never = BackOff(RestartPolicy(enabled=False))
    assert (never.next_delay(), never.verdict) == (None, "")


def test_an_engine_that_ends_before_it_was_healthy_is_a_start_that_failed():
    back_off = BackOff(RestartPolicy(first_delay=1.0, healthy_after=60.0, max_failures=3))
    delays = []
    for seconds in (5.0, 59.9, 60.0, 1.0, 2.0, 3.0):
        back_off.engine_ran(seconds, seconds)
        delays.append(back_off.next_delay())
    assert delays == [1.0, 2.0, 1.0, 2.0, 4.0, None]
    back_off = BackOff(RestartPolicy(max_failures=2))
    back_off.engine_ran(1.0, 1.0)
    back_off.start_failed()
    assert back_off.next_delay() is None


def test_an_engine_that_had_nothing_to_do_for_long_was_healthy():
    back_off = BackOff(RestartPolicy(first_delay=1.0, max_failures=2, healthy_idle_after=600.0))
    delays = []
    for ready in (599.0, 600.0, 600.0, 600.0, 5.0, 5.0):
        back_off.engine_ran(0.0, ready)
        delays.append(back_off.next_delay())
    assert delays == [1.0, 1.0, 1.0, 1.0, 2.0, None]


def test_without_a_limit_it_is_never_given_up():
    back_off = BackOff(RestartPolicy(first_delay=1.0, max_delay=2.0, max_failures=None))
    for _ in range(100):
        back_off.start_failed()
        assert back_off.next_delay() is not None
    assert back_off.verdict == ""


def test_it_starts_again_what_dies_and_counts():
    async def check() -> None:
        world = World([READY, failed("no memory"), READY])
        await world.supervisor.start()
        world.links[0].says(HealthChanged(("a fault",), 4))
        assert world.supervisor.status.faults == ("a fault",)
        world.links[0].says(EngineDied("rank 1 is gone"))
        world.links[0].says(EngineDied("again"))
        assert world.deaths == ["the engine stopped: rank 1 is gone"]
        with pytest.raises(EngineDeadError, match=r"restarting.*rank 1 is gone"):
            world.supervisor.require_ready()
        await world.until("ready")
        assert world.states == ["starting", "ready", "ready", "restarting", "restarting", "ready"]
        status = world.supervisor.status
        assert (status.restarts, status.faults, status.failed_steps) == (1, (), 0)
        assert "rank 1 is gone" in str(status.reason)
        assert [link.stops for link in world.links] == [1, 1, 0]
        await world.supervisor.close()
        assert world.links[2].stops == 1
        assert world.deaths[1:] == ["it was closed"]

    asyncio.run(check())


def test_it_gives_up_and_says_why():
    async def check() -> None:
        world = World([READY, failed("one"), failed("two"), READY])
        await world.supervisor.start()
        world.links[0].says(EngineDied("gone"))
        await world.until("dead")
        assert len(world.links) == 3
        with pytest.raises(EngineDeadError, match=r"dead: given up, as the last 3 starts .*gone.*two.*Make a new one"):
            world.supervisor.require_ready()
        await world.supervisor.close()
        assert len(world.deaths) == 1

    asyncio.run(check())


def test_one_that_ends_soon_after_every_start_is_given_up_and_each_death_is_told():
    async def check() -> None:
        world = World([READY] * 5)
        await world.supervisor.start()
        for number in range(3):
            await world.until("ready")
            world.links[number].says(EngineDied(f"crash {number}"))
        assert world.states[-1] == "dead"
        assert world.supervisor.status.restarts == 2
        assert world.deaths == [f"the engine stopped: crash {number}" for number in range(3)]
        expected = r"dead: given up, as the last 3 starts .* worked for 60 s; the last time the engine stopped: crash 2"
        with pytest.raises(EngineDeadError, match=expected):
            world.supervisor.require_ready()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(world.links) == 3, "nothing is started any more"
        assert [link.stops > 0 for link in world.links] == [True] * 3
        await world.supervisor.close()

    asyncio.run(check())


def step(step_id: int) -> StepDone:
    stats = SchedulerStats(
        running=0,
        waiting=0,
        used_blocks=0,
        free_blocks=1,
        cached_blocks=0,
        prefix_query_tokens=0,
        prefix_hit_tokens=0,
        preemptions=0,
    )
    return StepDone(StepOutput(finished={}, time=0.0, step_id=step_id), stats, 0.0, 0.0)


@pytest.mark.parametrize(("works", "end"), [(True, "ready"), (False, "dead")])
def test_however_long_it_waits_for_its_first_step_it_was_not_healthy_before(works: bool, end: str):
    async def check() -> None:
        world = World([READY] * 4, RestartPolicy(first_delay=0.0, max_failures=3, healthy_after=1e-9))
        await world.supervisor.start()
        for number in range(3):
            await world.until("ready")
            world.links[number].says(step(int(works)))  # 0: only requests have ended
            world.links[number].says(EngineDied("gone"))
        await world.until(end)
        await world.supervisor.close()

    asyncio.run(check())


def test_one_that_was_healthy_in_between_is_started_again_however_often_it_ends():
    async def check() -> None:
        world = World([READY] * 11, RestartPolicy(first_delay=0.0, max_failures=2, healthy_after=0.0))
        await world.supervisor.start()
        for number in range(10):
            await world.until("ready")
            world.links[number].says(EngineDied("gone"))
        await world.until("ready")
        assert world.supervisor.status.restarts == 10
        await world.supervisor.close()

    asyncio.run(check())


def test_told_not_to_it_leaves_the_engine_dead():
    async def check() -> None:
        world = World([READY], RestartPolicy(enabled=False))
        await world.supervisor.start()
        world.links[0].says(EngineDied("gone"))
        assert world.states[-1] == "dead"
        await world.supervisor.close()
        assert world.states[-1] == "closed"
        assert world.links[0].stops >= 1

    asyncio.run(check())


def test_the_first_start_is_tried_once():
    async def check() -> None:
        world = World([failed("no such model")])
        with pytest.raises(ModelError, match="no such model"):
            await world.supervisor.start()
        assert world.supervisor.status.state == "dead"
        with pytest.raises(EngineError, match="once"):
            await world.supervisor.start()
        await world.supervisor.close()

    asyncio.run(check())


def test_lost_while_its_user_gets_ready_it_is_not_ready():
    async def check() -> None:
        world = World([READY])

        async def lose() -> None:
            world.links[0].says(EngineDied("gone too early"))

        world.get_ready = lose
        with pytest.raises(EngineDeadError, match="gone too early"):
            await world.supervisor.start()
        assert world.deaths == []
        assert world.links[0].stops == 1

    asyncio.run(check())


@pytest.mark.parametrize("turns", range(8))
def test_closed_at_any_moment_of_a_restart_every_engine_is_stopped(turns: int):
    async def check() -> None:
        world = World([READY, None])
        await world.supervisor.start()
        world.links[0].says(EngineDied("gone"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await world.supervisor.close()
        assert world.supervisor.status.state == "closed"
        assert all(link.stops for link in world.links)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(check())


def test_closed_while_its_user_gets_ready():
    async def check() -> None:
        world = World([READY])

        async def close() -> None:
            await world.supervisor.close()

        world.get_ready = close
        with pytest.raises(EngineDeadError, match="closed while it was starting"):
            await world.supervisor.start()
        assert world.supervisor.status.state == "closed"

    asyncio.run(check())
