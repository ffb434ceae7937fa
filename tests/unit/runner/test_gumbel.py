"""The noise: SplitMix64 bit for bit, the distribution of E, and that its smallest values keep their precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vcore.runner.gumbel import log_exponential, position_keys, request_key, token_offsets

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(state: int) -> int:
    """SplitMix64's finaliser in Python's own integers."""
    state &= MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_splitmix64_gives_its_published_sequence() -> None:
    # The first outputs of the reference implementation for seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix(1234567 + i * GAMMA) for i in (1, 2, 3)] == expected


@pytest.mark.parametrize(("seed", "index", "position"), [(0, 0, 0), (1, 3, 17), (2**64 - 1, 0, 2**31), (-5, 1, 8)])
def test_tokens_get_the_bits_that_python_integers_give(seed: int, index: int, position: int) -> None:
    key = request_key(seed, index)
    assert key == mix(mix(seed + GAMMA) + (index + 1) * GAMMA)
    keys = position_keys(np.array([key], dtype=np.uint64), np.array([position]))
    base = mix(key + (position + 1) * GAMMA)
    assert int(keys[0]) & MASK == base
    states = torch.from_numpy(keys) + token_offsets(50, torch.device("cpu"))
    bits = [mix(base + (token + 1) * GAMMA) >> 11 for token in range(50)]
    expected = [math.log(-math.log1p(-(value + 0.5) / 2**53)) for value in bits]
    assert log_exponential(states).tolist() == pytest.approx(expected, abs=2e-6)


def test_seeds_samples_and_positions_all_give_other_keys() -> None:
    keys = {request_key(seed, index) for seed in range(40) for index in range(40)}
    assert len(keys) == 1600
    positions = position_keys(np.full(1000, request_key(0, 0), dtype=np.uint64), np.arange(1000))
    assert len(set(positions.tolist())) == 1000


def test_e_is_exponential() -> None:
    states = torch.from_numpy(position_keys(np.array([9], dtype=np.uint64), np.array([4])))
    e = log_exponential(states + token_offsets(200_000, torch.device("cpu"))).double().exp()
    assert e.mean().item() == pytest.approx(1.0, abs=0.01)
    for quantile in (0.001, 0.1, 0.5, 0.9, 0.999):
        below = (e < -math.log1p(-quantile)).double().mean().item()
        assert below == pytest.approx(quantile, abs=4 * math.sqrt(quantile / 200_000))


def test_the_extremes_are_finite_and_the_smallest_keep_their_precision() -> None:
    # `unmix` of v's 53 bits being 0, 1 and all ones: invert the finaliser.
    def unmix(value: int) -> int:
        value ^= value >> 31 ^ value >> 62
        value = value * pow(0x94D049BB133111EB, -1, 1 << 64) & MASK
        value ^= value >> 27 ^ value >> 54
        value = value * pow(0xBF58476D1CE4E5B9, -1, 1 << 64) & MASK
        return value ^ value >> 30 ^ value >> 60

    states = np.array([unmix(0), unmix(1 << 11), unmix(MASK)], dtype=np.uint64).view(np.int64)
    result = log_exponential(torch.from_numpy(states.copy())).tolist()
    assert result[0] == pytest.approx(math.log(0.5 / 2**53), abs=1e-5)
    assert result[1] == pytest.approx(math.log(1.5 / 2**53), abs=1e-5)
    assert 2.7 < result[2] < math.inf
