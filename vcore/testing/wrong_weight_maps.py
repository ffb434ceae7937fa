"""Mistakes in a `WeightMap` that a comparison of logits must see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from vcore.layers.weights import WeightMap

__all__ = ["wrong_weight_maps"]


def wrong_weight_maps(right: WeightMap) -> Iterator[tuple[str, WeightMap]]:
    """Copies of `right` with two names exchanged, each with a description of what was done.

    Exchanged are the last two of the tensors that a layer is joined from (value for key, up for gate), and any two
    names in the checkpoint that parameters are renamed to (one norm for another).
    """
    for layer, names in right.stacked.items():
        if len(names) > 1:
            *others, first, second = names
            stacked = {**right.stacked, layer: (*others, second, first)}
            yield f"{second} loaded as {first} in {layer}", replace(right, stacked=stacked)
    for one, other in combinations(right.rename, 2):
        rename = {**right.rename, one: right.rename[other], other: right.rename[one]}
        yield f"{right.rename[other]!r} loaded as {one!r}", replace(right, rename=rename)
