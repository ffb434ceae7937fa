"""Step times: one step and many agree to the last bit, and a fit finds the coefficients that made the times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcore.errors import ConfigError
from vcore.interfaces.step import SchedulerOutput
from vcore.simulate import StepLoad, StepTimeModel, fit_step_time, relative_errors

SECONDS = st.floats(0, 1, allow_subnormal=False)


def test_the_load_of_a_mixed_step() -> None:
    output = SchedulerOutput(
        step_id=1,
        rows=np.array([4, 2, 7], dtype=np.int32),
        num_tokens=np.array([1, 1, 5], dtype=np.int32),
        samples=np.array([True, True, False]),
        num_decodes=2,
    )
    load = StepLoad.of(output, np.array([9, 30, 10]))
    # Each query of the chunk sees what is before it, and itself: 11 + 12 + 13 + 14 + 15.
    assert load == StepLoad(
        num_tokens=7,
        num_prefill_rows=1,
        prefill_pairs=65,
        num_decode_rows=2,
        decode_kv_tokens=41,
        prefill_kv_tokens=15,
    )


@given(SECONDS, SECONDS, st.integers(0, 64), SECONDS, SECONDS, st.integers(1, 300), st.integers(1, 10**6))
def test_many_decode_steps_take_what_each_takes(
    base: float, token: float, knee: int, row: float, kv_token: float, num_rows: int, kv_tokens: int
) -> None:
    model = StepTimeModel(base_s=base, token_s=token, knee_tokens=knee, decode_row_s=row, kv_token_s=kv_token)
    loads = [StepLoad(num_rows, 0, 0, num_rows, kv_tokens + step * num_rows, 0) for step in range(7)]
    assert model.decode_seconds(num_rows, kv_tokens, 7).tolist() == [model.seconds(load) for load in loads]


def grid() -> list[StepLoad]:
    prefills = [
        StepLoad(n, 1, n * start + n * (n + 1) // 2, 0, 0, start + n)
        for n in (2, 8, 32, 128, 512, 2048)
        for start in (0, 999)
    ]
    decodes = [StepLoad(n, 0, 0, n, n * context, 0) for n in (1, 4, 16, 64, 256) for context in (10, 200, 3000)]
    mixed = [StepLoad(n + 100, 2, n * 50, 100, 100 * n, 2 * n) for n in (10, 100, 1000)]
    return prefills + decodes + mixed


def test_a_fit_finds_what_made_the_times() -> None:
    model = StepTimeModel(
        base_s=2e-3,
        token_s=2e-5,
        knee_tokens=128,
        prefill_row_s=1e-4,
        pair_s=1e-9,
        prefill_kv_token_s=3e-8,
        decode_row_s=3e-6,
        kv_token_s=4e-8,
    )
    loads = grid()
    found = fit_step_time(loads, [model.seconds(load) for load in loads])
    assert found.knee_tokens == 128
    assert found.model_dump() == pytest.approx(model.model_dump(), rel=1e-6)
    assert relative_errors(found, loads, [model.seconds(load) for load in loads]).max() < 1e-9


def test_no_coefficient_is_negative() -> None:
    loads = grid()
    found = fit_step_time(loads, [1e-2 / load.num_tokens for load in loads])  # quicker with more tokens
    assert min(found.model_dump().values()) >= 0


def test_noise_does_not_shorten_times() -> None:
    rng = np.random.default_rng(0)
    model = StepTimeModel(base_s=1e-3, token_s=1e-5)
    loads = grid() * 40
    seconds = [model.seconds(load) * float(rng.choice([0.6, 1.4])) for load in loads]
    found = fit_step_time(loads, seconds)
    total = sum(found.seconds(load) for load in loads)
    assert total == pytest.approx(sum(seconds), rel=0.05)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="6 measured steps do not suffice for 7 coefficients"):
        fit_step_time(grid()[:6], [1.0] * 6)
