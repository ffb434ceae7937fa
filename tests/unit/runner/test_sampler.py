"""The sampler with its state and plan, against a per-row reference, for parameters in any combination."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from vcore.interfaces.logits import LogitsProcessor
from vcore.interfaces.step import NewRow, SchedulerOutput
from vcore.runner.batch_state import BatchState
from vcore.runner.gumbel import log_exponential, position_keys, request_key, token_offsets
from vcore.runner.sampler import Sampled, Sampler
from vcore.runner.sampling_plan import plan_sampling
from vcore.runner.sampling_state import Need, SamplingState
from vcore.runner.staging import SharedStaging
from vcore.sampling_params import SamplingParams

VOCAB = 50
CPU = torch.device("cpu")


@dataclass
class Case:
    """One request in the middle of its output."""

    params: SamplingParams
    prompt: list[int] = field(default_factory=lambda: [3, 4, 4])
    output: list[int] = field(default_factory=lambda: [7, 8, 8])
    eos: tuple[int, ...] = (2,)
    bad_words: tuple[tuple[int, ...], ...] = ()
    seed: int = 0
    sample_index: int = 0


def case(seed: int = 0, **params: object) -> Case:
    own = {name: params.pop(name) for name in ("prompt", "output", "eos", "bad_words") if name in params}
    return Case(SamplingParams(**{"max_tokens": None, **params}), seed=seed, **own)  # type: ignore[arg-type]


class Bench:
    """A sampling side on its own: rows are taken at random and logits are given by hand."""

    def __init__(self, make_processor: Callable[[str], LogitsProcessor] | None = None, rows: int = 32) -> None:
        self.batch = BatchState(max_num_seqs=rows, max_model_len=64, block_size=16)
        self.state = SamplingState(
            self.batch, max_num_seqs=rows, vocab_size=VOCAB, device=CPU, make_processor=make_processor or self._none
        )
        self.sampler = Sampler(VOCAB, CPU, self.state.penalties)
        self.free = list(np.random.default_rng(0).permutation(rows))

    @staticmethod
    def _none(name: str) -> LogitsProcessor:
        raise LookupError(f"no processor is called {name}")

    def add(self, item: Case) -> int:
        row = int(self.free.pop())
        new = NewRow(
            row=row,
            request_id=str(row),
            token_ids=item.prompt + item.output,
            num_prompt_tokens=len(item.prompt),
            num_computed_tokens=0,
            block_ids=[[1]],
            params=item.params,
            eos_token_ids=item.eos,
            seed=item.seed,
            sample_index=item.sample_index,
            bad_words_token_ids=item.bad_words,
        )
        empty = np.empty(0, dtype=np.int32)
        self.batch.apply(
            SchedulerOutput(step_id=0, new_rows=[new], rows=empty, num_tokens=empty, samples=empty.astype(bool))
        )
        self.state.add(new)
        return row

    def remove(self, row: int) -> None:
        self.state.remove(row)
        self.batch.active[row] = False
        self.free.append(row)

    def sample(self, rows: list[int], logits: np.ndarray) -> Sampled:
        index = np.array(rows, dtype=np.int64)
        plan = plan_sampling(self.state, self.batch, index, SharedStaging().put)
        with torch.inference_mode():
            sampled = self.sampler.sample(torch.from_numpy(logits.copy()), plan)
        self.batch.append_tokens(index, sampled.token_ids.numpy())
        return sampled


def edited(item: Case, logits: np.ndarray) -> np.ndarray:
    """The logits after penalties, bias, allowed tokens and bans: one row, one rule after another."""
    params, result = item.params, logits.astype(np.float64).copy()
    for token in set(item.prompt + item.output):
        factor = params.repetition_penalty
        result[token] = result[token] / factor if result[token] > 0 else result[token] * factor
    for token in set(item.output):
        result[token] -= params.presence_penalty + params.frequency_penalty * item.output.count(token)
    for token, bias in (params.logit_bias or {}).items():
        result[token] += bias
    if params.allowed_token_ids is not None:
        result[[i for i in range(VOCAB) if i not in params.allowed_token_ids]] = -math.inf
    for *prefix, last in item.bad_words:
        if item.output[len(item.output) - len(prefix) :] == prefix or not prefix:
            result[last] = -math.inf
    if len(item.output) < params.min_tokens:
        result[[*item.eos, *params.stop_token_ids]] = -math.inf
    return result


def reference(item: Case, logits: np.ndarray) -> int:
    """The token of one row, by the definitions."""
    scores, params = edited(item, logits), item.params
    if params.greedy:
        return int(scores.argmax())
    scores = (scores - scores.max()) / params.temperature
    if params.top_k > 0:
        scores[scores < np.sort(scores)[-min(params.top_k, VOCAB)]] = -math.inf
    order = np.argsort(-scores)
    cumulative = np.exp(scores[order]).cumsum()
    scores[order[int((cumulative < np.float32(params.top_p) * cumulative[-1]).sum()) + 1 :]] = -math.inf
    if params.min_p:
        scores[scores < scores.max() + math.log(params.min_p)] = -math.inf
    key = np.array([request_key(item.seed, item.sample_index)], dtype=np.uint64)
    position = np.array([len(item.prompt) + len(item.output)])
    states = torch.from_numpy(position_keys(key, position)) + token_offsets(VOCAB, CPU)
    return int((scores - log_exponential(states).double().numpy()).argmax())


def logits_of(num_rows: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((num_rows, VOCAB)) * 3).astype(np.float32)


CHOICES: list[dict[str, object]] = [
    {"temperature": 0},
    {"temperature": 0.7},
    {"temperature": 1.3, "top_p": 0.8},
    {"top_k": 5},
    {"top_k": 1},
    {"top_k": 500, "min_p": 0.05},
    {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
]
EDITS: list[dict[str, object]] = [
    {},
    {"repetition_penalty": 1.7},
    {"presence_penalty": 1.5, "frequency_penalty": 0.8},
    {"logit_bias": {1: 4.0, 9: -100.0}},
    {"allowed_token_ids": (7, 8, 30, 31, 32)},
    {"bad_words": ((8, 40), (41,), (7, 8, 30), (7, 8, 8, 31), (4, 7, 8, 8, 32))},
    {"min_tokens": 5, "stop_token_ids": (30, 31)},
    {"logprobs": 3},
]


def combinations() -> list[Case]:
    result = []
    for seed, (chosen, first, second) in enumerate(itertools.product(CHOICES, EDITS, EDITS)):
        result.append(case(seed, **{**chosen, **first, **second}))
    return result


def test_every_combination_of_parameters_gives_the_token_of_the_reference() -> None:
    cases = combinations()
    bench = Bench(rows=len(cases))
    rows = [bench.add(item) for item in cases]
    for step in range(4):
        logits = logits_of(len(cases), step)
        order = np.random.default_rng(step).permutation(len(cases))
        sampled = bench.sample([rows[i] for i in order], logits)
        assert not sampled.errors
        for i, raw, token in zip(order.tolist(), logits, sampled.token_ids.tolist(), strict=True):
            assert token == reference(cases[i], raw), (step, cases[i])
            cases[i].output.append(token)


def test_rows_come_and_go_without_a_trace() -> None:
    generator = np.random.default_rng(7)
    cases, bench = combinations(), Bench(rows=24)
    living: dict[int, Case] = {}
    for step in range(60):
        for row in [row for row in living if generator.random() < 0.3]:
            bench.remove(row)
            del living[row]
        while bench.free and generator.random() < 0.8:
            source = cases[int(generator.integers(len(cases)))]
            item = Case(
                source.params,
                generator.integers(3, VOCAB, 3).tolist(),
                generator.integers(3, VOCAB, int(generator.integers(0, 5))).tolist(),
                bad_words=source.bad_words,
                seed=step,
                sample_index=int(generator.integers(3)),
            )
            living[bench.add(item)] = item
        assert bench.state.num_flagged == np.count_nonzero(bench.state.flags)
        rows = [row for row in living if generator.random() < 0.7]
        if not rows:
            continue
        logits = logits_of(len(rows), step)
        tokens = bench.sample(rows, logits).token_ids.tolist()
        for row, raw, token in zip(rows, logits, tokens, strict=True):
            assert token == reference(living[row], raw)
            living[row].output.append(token)
            if len(living[row].output) > 20:
                bench.remove(row)
                del living[row]
    for row in list(living):
        bench.remove(row)
    assert not bench.state.flags.any()
    assert not bench.state.rules
    assert not bench.state.failures
    assert bench.state.num_flagged == 0
    assert bench.state.penalties.num_slots <= 32  # there were never more than 24 rows


@pytest.mark.parametrize("temperature", [1e-9, 1e-50, 5e-324])
def test_a_temperature_that_float32_cannot_hold_is_greedy(temperature: float) -> None:
    bench = Bench()
    rows = [bench.add(case(temperature=temperature)), bench.add(case(temperature=temperature, top_p=0.9))]
    sampled = bench.sample(rows, logits_of(2))
    assert sampled.token_ids.tolist() == logits_of(2).argmax(axis=1).tolist()
    assert sampled.scores.isfinite().all()


def test_a_greedy_batch_has_no_plan_and_leaves_the_logits_alone() -> None:
    bench = Bench()
    rows = [bench.add(case(temperature=0)) for _ in range(3)]
    bench.add(case(temperature=1.0))  # in the state, but not in this step
    assert plan_sampling(bench.state, bench.batch, np.array(rows), SharedStaging().put) is None
    assert bench.sample(rows, logits_of(3)).token_ids.tolist() == logits_of(3).argmax(axis=1).tolist()


def test_min_tokens_costs_nothing_once_it_is_reached() -> None:
    bench = Bench()
    row = bench.add(case(temperature=0, min_tokens=5, output=[7, 8, 9]))
    logits = np.zeros((1, VOCAB), dtype=np.float32)
    logits[0, 2] = 9.0  # the end of sequence
    tokens = [bench.sample([row], logits).token_ids.item() for _ in range(3)]
    assert tokens == [0, 0, 2]
    assert bench.state.flags[row] == 0
    assert bench.state.num_flagged == 0


def test_a_neighbours_rules_do_not_change_a_row() -> None:
    plain = [case(seed=i, temperature=0.8, top_p=0.9, logprobs=2) for i in range(4)]
    logits = logits_of(8)

    def tokens(neighbours: list[Case]) -> list[int]:
        bench = Bench()
        rows = [bench.add(item) for item in [*plain, *neighbours]]
        return bench.sample(rows, logits[: len(rows)]).token_ids.tolist()[:4]

    loud = [
        case(allowed_token_ids=(1,)),
        case(temperature=0, presence_penalty=2),
        case(min_tokens=9, logit_bias={1: 9.0}),
    ]
    assert tokens([]) == tokens(loud)


def test_the_seed_and_the_sample_index_set_samples_apart() -> None:
    bench, flat = Bench(rows=64), np.zeros((1, VOCAB), dtype=np.float32)

    def sample(seed: int, index: int) -> int:
        item = case(seed)
        item.sample_index = index
        return int(bench.sample([bench.add(item)], flat).token_ids.item())

    by_seed, by_index = [sample(i, 0) for i in range(15)], [sample(0, i) for i in range(15)]
    assert len(set(by_seed)) > 8
    assert len(set(by_index)) > 8
    assert by_seed[0] == by_index[0] == sample(0, 0)


def test_logprobs_are_of_the_raw_logits_whatever_changes_them_later() -> None:
    bench, logits = Bench(), logits_of(3)
    items = [
        case(temperature=0, logprobs=4, logit_bias={11: 100.0}),
        case(temperature=0),
        case(temperature=5.0, top_k=2, logprobs=1, presence_penalty=2),
    ]
    sampled = bench.sample([bench.add(item) for item in items], logits)
    assert sampled.logprobs is not None
    first, second = sampled.logprobs.to_lists([4, 1])
    expected = torch.from_numpy(logits).log_softmax(dim=1)
    assert first.token_ids[0] == 11
    for entry, i in ((first, 0), (second, 2)):
        assert entry.token_ids[0] == sampled.token_ids[i]
        assert entry.logprobs == pytest.approx(expected[i, entry.token_ids].tolist(), abs=1e-5)


def test_a_row_with_nothing_left_to_sample_is_marked_and_others_go_on() -> None:
    bench = Bench()
    items = [
        case(temperature=0, allowed_token_ids=(2,), min_tokens=9),
        case(allowed_token_ids=(2,), min_tokens=9),
        case(temperature=0),
    ]
    scores = bench.sample([bench.add(item) for item in items], logits_of(3)).scores
    assert scores[:2].tolist() == [-math.inf] * 2
    assert scores[2] > -math.inf


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"logit_bias": {VOCAB: 1.0}}, "logit_bias has 50, which is no token id: the vocabulary has 50"),
        ({"allowed_token_ids": (-1,)}, "allowed_token_ids has -1"),
        ({"logits_processors": ("none",)}, "logits processor 'none' failed: LookupError: no processor is called none"),
    ],
)
def test_a_request_that_cannot_be_served_fails_alone(params: dict[str, object], message: str) -> None:
    bench = Bench()
    bad, good = bench.add(case(temperature=0, min_tokens=9, **params)), bench.add(case(temperature=0))
    logits = logits_of(2)
    for _ in range(2):
        sampled = bench.sample([bad, good], logits)
        assert list(sampled.errors) == [0]
        assert message in sampled.errors[0]
        assert sampled.token_ids[1] == logits[1].argmax()
    bench.remove(bad)
    assert bench.state.num_flagged == 0


def test_banned_tokens_outside_the_vocabulary_have_no_effect() -> None:
    bench = Bench()
    row = bench.add(case(temperature=0, bad_words=((VOCAB + 3,), (8, VOCAB)), min_tokens=9, stop_token_ids=(999,)))
    assert bench.state.flags[row] == Need.MIN_TOKENS  # for the end of sequence alone
    assert not bench.sample([row], logits_of(1)).errors


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_sampled_in_float32(dtype: torch.dtype) -> None:
    bench = Bench()
    items = [case(temperature=0), case(1, top_p=0.9), case(2, presence_penalty=1.0, temperature=0)]
    index = np.array([bench.add(item) for item in items])
    logits = torch.from_numpy(logits_of(3)).to(dtype)
    plan = plan_sampling(bench.state, bench.batch, index, SharedStaging().put)
    with torch.inference_mode():
        token_ids = bench.sampler.sample(logits.clone(), plan).token_ids.tolist()
    assert token_ids == [reference(item, raw) for item, raw in zip(items, logits.float().numpy(), strict=True)]
