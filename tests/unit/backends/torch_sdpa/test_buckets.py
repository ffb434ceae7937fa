"""Bucketing of ragged lengths."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from vcore_backends.torch_sdpa.buckets import BucketLimits, bucket_rows

ROOMY = BucketLimits(max_keys=1_000_000, max_padding=1_000_000)


def _bucket(lengths: list[int], limits: BucketLimits):
    order, buckets = bucket_rows(np.array(lengths, dtype=np.int64), limits)
    return [[lengths[row] for row in order[bucket.start : bucket.stop]] for bucket in buckets]


@given(
    lengths=st.lists(st.integers(1, 1000), max_size=40),
    max_keys=st.integers(1, 5000),
    max_padding=st.integers(0, 500),
)
def test_buckets_cover_the_rows_within_the_limits(lengths: list[int], max_keys: int, max_padding: int):
    order, buckets = bucket_rows(np.array(lengths, dtype=np.int64), BucketLimits(max_keys, max_padding))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert [bucket.start for bucket in buckets] == [0, *(bucket.stop for bucket in buckets)][: len(buckets)]
    assert (buckets[-1].stop if buckets else 0) == len(lengths)
    for bucket in buckets:
        rows = [lengths[row] for row in order[bucket.start : bucket.stop]]
        assert bucket.width == max(rows)
        assert bucket.is_even == (min(rows) == max(rows))
        assert sum(bucket.width - length for length in rows) <= max_padding
        assert len(rows) == 1 or len(rows) * bucket.width <= max_keys


def test_few_lengths_of_a_kind_stay_together():
    assert _bucket([5, 7, 6], ROOMY) == [[7, 6, 5]]


def test_padding_cuts_where_lengths_differ():
    limits = BucketLimits(max_keys=1_000_000, max_padding=100)
    assert _bucket([1000, 50, 990, 55, 52], limits) == [[1000, 990], [55, 52, 50]]


def test_a_long_row_has_a_bucket_of_its_own_whatever_the_limit():
    assert _bucket([900, 10, 10], BucketLimits(max_keys=30, max_padding=10_000)) == [[900], [10, 10]]


def test_equal_rows_keep_their_order():
    order, _ = bucket_rows(np.array([3, 9, 3, 9]), ROOMY)
    assert order.tolist() == [1, 3, 0, 2]
