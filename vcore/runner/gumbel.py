"""Counter-based noise for Gumbel-max sampling: the same for a token whatever else is in the batch.

A token is sampled as ``argmax(log p(token) - log E(token))`` with E exponentially distributed, which is
the Gumbel-max trick (Gumbel 1954; Maddison, Tarlow, Minka, "A* Sampling", 2014, section 2). E comes from
a counter, not from a stream: SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014, figure 17) of

    key(seed, sample index, position) + (token id + 1) * golden gamma        modulo 2^64

so no generator has a state that would depend on batch, order, rank or preemption. Integers are int64,
which wraps the same on every device.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["log_exponential", "position_keys", "request_key", "token_offsets"]

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_LARGEST_BELOW_ONE = 1.0 - 2.0**-24


def request_key(seed: int, sample_index: int) -> int:
    """The key of one of a request's samples, in 0..2^64 - 1. Only the lowest 64 bits of `seed` count."""
    return _mix(_mix(seed + _GAMMA) + (sample_index + 1) * _GAMMA)


def position_keys(request_keys: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys of tokens to sample.

    Args:
        request_keys: uint64 [n], of `request_key`.
        positions: int64 [n], how many tokens of prompt and output come before each.

    Returns:
        int64 [n].
    """
    state = request_keys + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    keys: NDArray[np.int64] = (state ^ (state >> np.uint64(31))).view(np.int64)
    return keys


def token_offsets(vocab_size: int, device: torch.device) -> torch.Tensor:
    """int64 [vocab_size] on `device`: what each token id adds to a key."""
    ids = np.arange(1, vocab_size + 1, dtype=np.uint64)
    return torch.from_numpy((ids * np.uint64(_GAMMA)).view(np.int64)).to(device)


def log_exponential(states: torch.Tensor) -> torch.Tensor:
    """``log E`` of the exponential variate that each state gives.

    E is ``-log1p(-v)`` with v in (0, 1): 53 random bits, taken to float32 only after they were scaled, so that
    the smallest E, which win the race, keep their precision.

    Args:
        states: int64 of any shape, key plus offset. Overwritten.

    Returns:
        float32, same shape.
    """
    shifted = torch.empty_like(states)
    _xor_shift(states, 30, shifted)
    states.mul_(_signed(_MIX_1))
    _xor_shift(states, 27, shifted)
    states.mul_(_signed(_MIX_2))
    _xor_shift(states, 31, shifted)
    states.bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1)
    v = states.to(torch.float32).add_(0.5).mul_(2.0**-53).clamp_(max=_LARGEST_BELOW_ONE)
    return v.neg_().log1p_().neg_().log_()


def _xor_shift(states: torch.Tensor, bits: int, scratch: torch.Tensor) -> None:
    """``states ^= states >>> bits`` with a logical shift."""
    torch.bitwise_right_shift(states, bits, out=scratch)
    states.bitwise_xor_(scratch.bitwise_and_((1 << (64 - bits)) - 1))


def _mix(state: int) -> int:
    state &= _MASK
    state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
    state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
    return state ^ (state >> 31)


def _signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    return value - (1 << 64) if value >> 63 else value
