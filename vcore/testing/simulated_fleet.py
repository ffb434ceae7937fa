"""`SimulatedFleet`: small replicas of the simulator behind a routing policy; for tests of such policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vcore.interfaces.routing import ArrivalView, ReplicaView, RoutingContext, RoutingPolicy
from vcore.scheduler import SchedulerSettings
from vcore.simulate.block_names import BlockNames
from vcore.simulate.checked_routing import CheckedRouting
from vcore.simulate.fleet import Fleet
from vcore.simulate.replica import Clock, Replica
from vcore.simulate.request_maker import RequestMaker
from vcore.simulate.scheduler import SimulatedScheduler
from vcore.simulate.settings import FleetOptions
from vcore.simulate.step_time import StepTimeModel
from vcore.simulate.timeline import Timeline
from vcore.testing.simulated_engine import ByArrival, LongestUnused
from vcore.traces import Trace

__all__ = ["SimulatedFleet"]


class SimulatedFleet:
    """Serves a trace, in strict mode: any wrong answer of the policy raises `vcore.errors.PolicyError`.

    fleet = SimulatedFleet(lambda context: MyRouting(options=None, context=context), num_replicas=2)
    assert fleet.serve(trace) == [0, 1, 0]
    """

    def __init__(
        self,
        make: Callable[[RoutingContext], RoutingPolicy],
        num_replicas: int = 3,
        *,
        seed: int = 0,
        step_time: StepTimeModel | None = None,
        **settings: Any,
    ) -> None:
        """A fleet before its first request.

        Args:
            make: makes the policy.
            num_replicas: at least 2.
            seed: of what the policy draws.
            step_time: how long steps take; 10 ms, and 1 ms a token, if not given.
            settings: fields of `vcore.scheduler.SchedulerSettings`, over the defaults below.
        """
        values: dict[str, Any] = {
            "max_num_seqs": 4,
            "max_num_batched_tokens": 32,
            "max_model_len": 128,
            "block_size": 4,
            "num_blocks": 60,
        }
        self.settings = SchedulerSettings(**(values | settings), strict=True)
        self.policy = make(
            RoutingContext(
                num_replicas=num_replicas,
                max_num_seqs=self.settings.max_num_seqs,
                num_blocks=self.settings.num_blocks - 1,
                block_size=self.settings.block_size,
                seed=seed,
            )
        )
        self._num_replicas = num_replicas
        self._step_time = step_time or StepTimeModel(base_s=0.01, token_s=0.001)

    def serve(self, trace: Trace) -> list[int]:
        """Serve all requests to their ends, by replicas that have seen none before.

        Args:
            trace: no request of it has more tokens than the cache and `max_model_len` hold.

        Returns:
            The replica that each was sent to.
        """
        names = BlockNames(trace, self.settings.block_size)
        timeline = Timeline(np.array([one.arrival_s for one in trace.requests], dtype=np.float64))

        def make_scheduler(clock: Clock) -> SimulatedScheduler:
            return SimulatedScheduler(
                self.settings,
                ByArrival(),
                lambda context: LongestUnused(),
                policy_name="by arrival",
                eviction_name="longest unused",
                clock=clock,
                new_hash=names.new,
            )

        replicas = [
            Replica(make_scheduler, self._step_time, timeline, self.settings.max_num_seqs)
            for _ in range(self._num_replicas)
        ]
        watched = _Watched(self.policy)
        fleet = Fleet(replicas, CheckedRouting(watched, "routing-under-test 1.0", strict=True))
        fleet.serve(trace, RequestMaker(trace, self.settings, names, FleetOptions(replicas=self._num_replicas)))
        assert not np.isnan(timeline.finished).any(), "a request that was sent somewhere ends"
        return watched.chosen


class _Watched(RoutingPolicy):
    """The policy, and what it answered."""

    def __init__(self, policy: RoutingPolicy) -> None:
        self._policy = policy
        self.looks_at_replicas = policy.looks_at_replicas
        self.chosen: list[int] = []

    def choose(self, request: ArrivalView, replicas: Sequence[ReplicaView]) -> int:
        self.chosen.append(self._policy.choose(request, replicas))
        return self.chosen[-1]
