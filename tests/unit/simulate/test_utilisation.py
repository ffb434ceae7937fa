"""How long replicas are busy: the same sum however steps are made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vcore.config import load_config
from vcore.interfaces.step import SchedulerOutput
from vcore.scheduler import SchedulerSettings
from vcore.simulate import FleetOptions, Policies, SimulationSettings, StepLoad, StepTimeModel, simulate
from vcore.traces import Trace, TraceRequest


@pytest.mark.parametrize("pause", [0.0, 0.37, 50.0])
def test_steps_made_together_take_to_the_last_bit_what_each_takes(pause: float) -> None:
    requests = [TraceRequest(arrival_s=index * pause, input_length=7, output_length=40 + index) for index in range(5)]
    settings = SimulationSettings(
        scheduler=SchedulerSettings(
            max_num_seqs=3, max_num_batched_tokens=8, max_model_len=60, block_size=4, num_blocks=60
        ),
        policies=Policies.of(load_config(None, {})),
        step_time=StepTimeModel(base_s=0.011, token_s=0.0013, kv_token_s=3e-5),
        fleet=FleetOptions(together=True),
    )
    trace = Trace("pauses", "csv", tuple(requests))
    together = simulate(trace, settings)
    taken: list[float] = []

    def watch(output: SchedulerOutput, load: StepLoad, started: float, ended: float) -> None:
        taken.append(ended - started)

    single = simulate(trace, replace(settings, fleet=FleetOptions(together=False)), watcher=watch)
    assert together.busy_s == single.busy_s == pytest.approx((sum(taken),))
