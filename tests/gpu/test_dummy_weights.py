"""Weights that are made up on the device are those that are made up on the host."""

from __future__ import annotations

import pytest
import torch
from vcore_model_zoo.loaders.dummy_loader import DummyReader

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", ["x.weight", "x.bias", "norm.weight"])
@pytest.mark.parametrize("index", [None, (slice(1000, 1900), slice(5, 1005))])
def test_the_same_on_both(name: str, index: tuple[slice, ...] | None) -> None:
    shape = (2000, 1010) if name == "x.weight" else (2000,)
    part = index[: len(shape)] if index else None
    expected = DummyReader(0, torch.bfloat16).read(name, shape, part)
    found = torch.empty(expected.shape, dtype=torch.bfloat16, device="cuda")
    DummyReader(0, torch.bfloat16).read_into(found, name, shape, part)
    assert torch.equal(found.cpu(), expected)
