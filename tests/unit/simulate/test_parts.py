"""The small parts of the simulator: block names, percentiles of weights, shares, deployments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcore.bench.percentiles import percentiles
from vcore.errors import ConfigError
from vcore.simulate import read_deployment
from vcore.simulate.block_names import BlockNames
from vcore.simulate.fairness import fair_shares, jain
from vcore.simulate.virtual_prompt import VirtualChain, VirtualPrompt
from vcore.simulate.weighted import weighted_percentiles
from vcore.traces import Trace, TraceRequest


def trace(*prompts: tuple[int, tuple[int, ...]], block_size: int | None = 8) -> Trace:
    requests = tuple(
        TraceRequest(arrival_s=0.0, input_length=length, output_length=1, block_ids=ids) for length, ids in prompts
    )
    return Trace("t", "csv", requests, block_size)


# Block names


def test_equal_beginnings_have_equal_names_and_a_partial_block_has_none() -> None:
    drawn = trace((20, (1, 2, 3)), (24, (1, 2, 3)), (24, (1, 9, 3)))
    names = BlockNames(drawn, 8)
    first, second, third = (names.of(one) for one in drawn.requests)
    assert len(first) == 2
    assert second[:2] == first
    assert third[0] == first[0]
    assert len({*second, *third}) == 5  # 3 after 9 is another block than 3 after 2


def test_blocks_of_a_trace_are_divided() -> None:
    drawn = trace((20, (1, 2, 3)), (24, (1, 2, 3)))
    names = BlockNames(drawn, 4)
    first, second = (names.of(one) for one in drawn.requests)
    assert len(set(second)) == 6
    assert second[:5] == first  # 20 tokens are five blocks of 4, the last of them within the partial one


def test_prompts_without_ids_share_nothing_and_texts_what_they_begin_with() -> None:
    plain = trace((16, ()), (16, ()), block_size=None)
    names = BlockNames(plain, 8)
    assert len({*names.of(plain.requests[0]), *names.of(plain.requests[1])}) == 4
    texts = [
        TraceRequest(arrival_s=0.0, input_length=16, output_length=1, text=text)
        for text in ("a" * 64, "a" * 32 + "b" * 32, "a" * 40)
    ]
    one, other, short = (names.of(request) for request in texts)
    assert one[0] == other[0] == short[0]
    assert len({one[1], other[1], short[1]}) == 3


def test_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="holds 16 tokens and one of t 8"):
        BlockNames(trace((8, (1,))), 16)


def test_a_virtual_prompt_counts_and_its_chain_grows() -> None:
    prompt = VirtualPrompt(7, [b"x"], end=9)
    copy = prompt.copy()
    copy.append(1)
    assert (len(prompt), len(copy), copy[-1], copy.end, copy[2:5]) == (7, 8, 1, 9, [0, 0, 0])
    assert not VirtualPrompt(0)
    chain = VirtualChain(4, prompt.hashes, lambda: b"new")
    assert chain.extend(prompt) == [b"x"]
    assert chain.extend(copy) == [b"x", b"new"]
    assert prompt.hashes == [b"x"]


# Arithmetic


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), min_size=1, max_size=30))
def test_percentiles_are_those_of_values_written_out(pairs: list[tuple[float, int]]) -> None:
    values, weights = np.array([value for value, _ in pairs]), np.array([weight for _, weight in pairs])
    found = weighted_percentiles(values, weights)
    assert found == pytest.approx(percentiles(np.repeat(values, weights).tolist()))


def test_nothing_has_no_percentiles() -> None:
    assert weighted_percentiles(np.array([]), np.array([], dtype=np.int64)) is None


def test_fair_shares_fill_small_demands_first() -> None:
    assert fair_shares(np.array([10.0, 2.0, 30.0]), 20.0).tolist() == [9.0, 2.0, 9.0]
    assert fair_shares(np.array([1.0, 2.0]), 20.0).tolist() == [1.0, 2.0]


def test_jains_index_is_one_for_equals_and_a_share_for_one_alone() -> None:
    assert jain(np.array([3.0, 3.0, 3.0])) == pytest.approx(1.0)
    assert jain(np.array([5.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)


# Deployments


def test_the_deployment_that_comes_along() -> None:
    found = read_deployment("llama-3.1-8b-h100")
    assert found.cache_tokens is not None
    # 181 tokens a second were measured.
    assert 1 / found.step_time.decode_seconds(1, 256, 1)[0] == pytest.approx(181, rel=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "one of llama-3.1-8b-h100"),
        ("{", "is no deployment"),
        ('{"name": "a", "step_time": {"base_s": 1e308}}', "step_time.base_s: Input should be less than"),
        ('{"name": "a", "step_time": {}, "max_num_seqs": 1000000000000}', "max_num_seqs: Input should be less than"),
        ('{"name": "x", "step_time": {"base_s": -1}}', "step_time.base_s: Input should be greater than or equal to 0"),
        ('{"name": "x", "step_time": {}, "cache": 3}', "cache: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_deployment_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "d.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="--deployment") as error:
        read_deployment(str(file))
    assert message in str(error.value)


def test_a_folder_is_no_deployment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_deployment(str(tmp_path))
