"""Staging: what is put comes out on the other side, whole, in any mix of dtypes and sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcore.runner.staging import PackedStaging, SharedStaging, Staging, make_staging

CPU = torch.device("cpu")


def arrays(scale: int) -> list[np.ndarray]:
    return [
        np.arange(5 * scale, dtype=np.int64),
        np.arange(7 * scale, dtype=np.int32).reshape(7, scale),
        np.linspace(0, 1, 3 * scale, dtype=np.float32),
        np.arange(scale) % 2 == 0,
        np.empty(0, dtype=np.int64),
    ]


@pytest.mark.parametrize("staging", [SharedStaging(), PackedStaging(CPU, num_bytes=256)], ids=["shared", "packed"])
def test_everything_that_was_put_arrives(staging: Staging) -> None:
    for scale in (1, 3, 400, 2):  # 400 makes the packed buffers grow between two puts
        staging.begin()
        put = [(array, staging.put(array)) for array in arrays(scale)]
        staging.flush()
        for array, tensor in put:
            assert tensor.shape == array.shape
            assert np.array_equal(tensor.numpy(), array)


def test_packed_staging_copies_so_that_arrays_may_change_at_once() -> None:
    staging = PackedStaging(CPU)
    staging.begin()
    array = np.arange(4)
    tensor = staging.put(array)
    array[:] = 9
    staging.flush()
    assert tensor.tolist() == [0, 1, 2, 3]


def test_the_cpu_shares_memory_and_others_pack() -> None:
    array = np.zeros(2)
    make_staging(CPU).put(array)[0] = 5
    assert array[0] == 5
    assert isinstance(make_staging(torch.device("meta")), PackedStaging)
