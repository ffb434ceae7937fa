"""The kernel that begins a decode step's graph against its reference; on a CPU under ``TRITON_INTERPRET=1``."""

from __future__ import annotations

import os

import pytest
import torch

from vcore.ops.triton import decode_input as kernels
from vcore.runner.decode_input import prepare

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
MAX_SIZE, MAX_BLOCKS, MAX_ROWS = 7, 700, 9


def step(num_groups: int, count: int, width: int) -> dict[str, torch.Tensor]:
    """Input of `count` rows, padded; every other row's token is known to the device alone."""
    generator = torch.Generator().manual_seed(count)

    def numbers(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randint(1, 1000, shape, generator=generator, dtype=dtype)

    longs, ints = numbers(4 + num_groups, MAX_SIZE, dtype=torch.int64), numbers(5, MAX_SIZE, dtype=torch.int32)
    longs[2] = -1
    longs[2, :count] = torch.randperm(MAX_ROWS, generator=generator)[:count]
    ints[1] = 0
    ints[1, :count:2] = 1
    ints[3, 0], ints[4, 0] = width, count
    given = {
        "input_ids": torch.full((MAX_SIZE,), -7),
        "block_tables": torch.full((num_groups, MAX_SIZE, MAX_BLOCKS), -7, dtype=torch.int32),
        "longs": longs,
        "ints": ints,
        "tables": numbers(num_groups * count * width, dtype=torch.int32),
        "last_token_ids": numbers(MAX_ROWS, dtype=torch.int64),
    }
    return {name: tensor.to(DEVICE) for name, tensor in given.items()}


@pytest.mark.parametrize(
    ("num_groups", "count", "width", "size"),
    [(1, 1, 1, 1), (1, 4, 3, 4), (2, 3, 256, 5), (3, 7, 257, 7), (2, 2, 700, 7), (1, 0, 0, 2), (0, 3, 0, 4)],
)
def test_tokens_and_block_tables_are_those_of_the_reference(num_groups: int, count: int, width: int, size: int) -> None:
    found, expected = step(num_groups, count, width), step(num_groups, count, width)
    kernels.prepare(**found, size=size)
    prepare.reference(**expected, size=size)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    if num_groups and count:
        assert (found["block_tables"][:, size:] == -7).all()
