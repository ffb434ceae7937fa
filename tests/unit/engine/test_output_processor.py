"""`OutputProcessor`: from steps to outputs, driven by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcore.engine import output_processor
from vcore.engine.input_processor import InputProcessor, ProcessedRequest
from vcore.engine.output_processor import OutputProcessor
from vcore.engine.request import FinishReason
from vcore.engine.step_output import Finished, Started, StepOutput
from vcore.engine.stop_strings import StopStrings
from vcore.interfaces.step import TokenLogprobs
from vcore.outputs import RequestOutput
from vcore.sampling_params import SamplingParams
from vcore.tokenizer import Tokenizer

EOS = 256


class Harness:
    """An output processor, the finishes that it asked for, and a way to feed it."""

    def __init__(self, tokenizer: Tokenizer | None, stream: bool = False) -> None:
        self.finishes: list[tuple[str, int, str | None]] = []
        self.outputs = OutputProcessor(tokenizer, lambda *finish: self.finishes.append(finish))
        self.inputs = InputProcessor(tokenizer=tokenizer, vocab_size=260, max_model_len=1000, eos_token_ids=(EOS,))
        self.stream = stream
        self.time = 0.0

    def add(self, name: str = "r", **params: Any) -> ProcessedRequest:
        processed = self.inputs.process([1, 2, 3], SamplingParams(**params), request_id=name)
        self.outputs.add(processed, stream=self.stream)
        return processed

    def step(self, *tokens: tuple[str, int], **columns: Any) -> list[RequestOutput]:
        self.time += 1.0
        ids, token_ids = [one for one, _ in tokens], [token for _, token in tokens]
        return self.outputs.process(StepOutput(ids, token_ids, time=self.time, **columns))

    def feed(self, name: str, text: bytes) -> list[RequestOutput]:
        """A step a byte; the last outputs."""
        return [output for token in text for output in self.step((name, token))]


def ended(reason: FinishReason, stop: int | str | None = None, preemptions: int = 0) -> Finished:
    return Finished(reason, stop, preemptions)


def test_only_the_end_is_told_unless_the_request_streams(byte_tokenizer: Tokenizer) -> None:
    for stream in (False, True):
        harness = Harness(byte_tokenizer, stream)
        harness.add()
        texts = [output.outputs[0].text for output in harness.feed("r", b"abc")]
        assert texts == (["a", "ab", "abc"] if stream else [])
        [output] = harness.step(finished={"r": ended(FinishReason.LENGTH)})
        assert (output.finished, output.outputs[0].text, output.outputs[0].finish_reason) == (True, "abc", "length")
        assert harness.outputs.num_requests == 0


@settings(max_examples=60)
@given(
    st.text("ab€ ", min_size=1, max_size=20),
    st.lists(st.text("ab€ ", min_size=1, max_size=3), max_size=3),
    st.integers(1, 4),
)
def test_streamed_and_unstreamed_text_are_the_same_whatever_the_steps(
    byte_tokenizer: Tokenizer, text: str, stops: list[str], per_step: int
) -> None:
    """Tokens come one or several a step; the text, the ids and the finish are the same."""
    ids = list(text.encode())

    def run(stream: bool, per_step: int) -> tuple[list[RequestOutput], list[tuple[str, int, str | None]]]:
        harness = Harness(byte_tokenizer, stream)
        harness.add(stop=stops, max_tokens=len(ids))
        told: list[RequestOutput] = []
        for begin in range(0, len(ids), per_step):
            part = ids[begin : begin + per_step]
            end = {"r": ended(FinishReason.LENGTH)} if begin + per_step >= len(ids) else {}
            told += harness.step(*(("r", token) for token in part), finished=end)
        assert harness.outputs.num_requests == 0
        return told, harness.finishes

    (whole,), _ = run(False, 1)
    streamed, _ = run(True, 1)
    (ragged,), finishes = run(False, per_step)
    assert streamed[-1].outputs == whole.outputs == ragged.outputs
    shown = ""
    for output in streamed:
        assert output.outputs[0].text.startswith(shown), "text that was shown was taken back"
        shown = output.outputs[0].text
    sample = whole.outputs[0]
    for stop in stops:
        assert stop not in sample.text
    if finishes:
        assert finishes == [("r", len(sample.token_ids), sample.stop_reason)]


def test_tokens_after_a_stop_string_are_neither_shown_nor_counted(byte_tokenizer: Tokenizer) -> None:
    harness = Harness(byte_tokenizer)
    harness.add(stop="END", logprobs=0)
    some = [TokenLogprobs([token], [-1.0], [1]) for token in b"xENDyz"]
    [output] = harness.step(*(("r", token) for token in b"xENDyz"), logprobs={"r": some})
    sample = output.outputs[0]
    assert (sample.text, sample.token_ids) == ("x", list(b"xEND"))
    assert (sample.finish_reason, sample.stop_reason) == ("stop", "END")
    assert sample.logprobs is not None
    assert (len(sample.logprobs), sample.cumulative_logprob) == (4, -4.0)
    assert harness.finishes == [("r", 4, "END")]
    assert harness.step(("r", 65), finished={"r": ended(FinishReason.STOP, "END")}) == []


def test_a_stop_string_in_the_last_token_wins_over_the_length_and_the_core_is_not_told_again(
    byte_tokenizer: Tokenizer,
) -> None:
    harness = Harness(byte_tokenizer)
    harness.add(stop="b")
    harness.step(("r", ord("a")))
    [output] = harness.step(("r", ord("b")), finished={"r": ended(FinishReason.LENGTH, None, 2)})
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", "b")
    assert output.metrics is not None
    assert output.metrics.num_preemptions == 2
    assert harness.finishes == []


@pytest.mark.parametrize("include", [False, True])
def test_the_token_that_ends_a_request_is_in_the_ids_and_by_default_not_in_the_text(
    byte_tokenizer: Tokenizer, include: bool
) -> None:
    harness = Harness(byte_tokenizer)
    harness.add(stop_token_ids=[ord("!")], include_stop_str_in_output=include)
    harness.step(("r", ord("a")))
    [output] = harness.step(("r", ord("!")), finished={"r": ended(FinishReason.STOP, ord("!"))})
    assert output.outputs[0].text == ("a!" if include else "a")
    assert output.outputs[0].token_ids == [ord("a"), ord("!")]
    assert output.outputs[0].stop_reason == ord("!")


@pytest.mark.parametrize(("skip", "text"), [(True, "ab"), (False, "a<eos>b")])
def test_special_tokens_within_the_text(byte_tokenizer: Tokenizer, skip: bool, text: str) -> None:
    harness = Harness(byte_tokenizer)
    harness.add(skip_special_tokens=skip, ignore_eos=True)
    harness.step(("r", ord("a")), ("r", EOS), ("r", ord("b")))
    [output] = harness.step(finished={"r": ended(FinishReason.LENGTH)})
    assert output.outputs[0].text == text


@pytest.mark.parametrize("params", [{"detokenize": False}, {}])
def test_without_text(byte_tokenizer: Tokenizer, params: dict[str, Any]) -> None:
    """By request, or because there is no tokenizer."""
    harness = Harness(byte_tokenizer if params else None)
    harness.add(logprobs=0, **params)
    one = TokenLogprobs([65], [-1.0], [1])
    [output] = harness.step(("r", 65), logprobs={"r": [one]}, finished={"r": ended(FinishReason.LENGTH)})
    assert (output.outputs[0].text, output.outputs[0].token_ids) == ("", [65])
    assert output.outputs[0].logprobs is not None
    assert output.outputs[0].logprobs[0][65].decoded_token is None


def test_the_samples_of_a_request_come_together(byte_tokenizer: Tokenizer) -> None:
    harness = Harness(byte_tokenizer)
    first, second = (request.request_id for request in harness.add(n=2, stop="b").engine_requests)
    assert harness.step((second, ord("x")), (first, ord("a"))) == []
    assert harness.step((first, ord("b")), (second, ord("y"))) == []
    assert harness.finishes == [(first, 2, "b")]
    assert harness.step((second, ord("z"))) == []
    [output] = harness.step(finished={second: ended(FinishReason.LENGTH)})
    assert [(sample.index, sample.text, sample.finish_reason) for sample in output.outputs] == [
        (0, "a", "stop"),
        (1, "xyz", "length"),
    ]
    assert harness.outputs.num_requests == 0


def test_stop_strings_are_prepared_once_for_all_samples(
    byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, ...]] = []

    class Watched(StopStrings):
        def __init__(self, stops: Sequence[str]) -> None:
            super().__init__(stops)
            made.append(tuple(stops))

    monkeypatch.setattr(output_processor, "StopStrings", Watched)
    harness = Harness(byte_tokenizer)
    samples = [request.request_id for request in harness.add(n=3, stop=["bc", "d"]).engine_requests]
    assert made == [("bc", "d")]
    for sample, text in zip(samples, (b"abc", b"ad", b"bbc"), strict=True):
        harness.feed(sample, text)
    assert [stop for *_, stop in harness.finishes] == ["bc", "d", "bc"]


def test_logprobs_by_token_id_with_texts(byte_tokenizer: Tokenizer) -> None:
    harness = Harness(byte_tokenizer)
    harness.add(logprobs=2)
    parts = [
        TokenLogprobs([97, 98, 97], [-1.5, -0.5, -1.5], [2, 1, 2]),
        TokenLogprobs([195, 97], [-0.25, -3.0], [1, 2]),
    ]
    harness.step(("r", 97), logprobs={"r": parts[:1]})
    [output] = harness.step(("r", 195), logprobs={"r": parts[1:]}, finished={"r": ended(FinishReason.LENGTH)})
    sample = output.outputs[0]
    assert sample.cumulative_logprob == -1.75
    assert sample.logprobs is not None
    assert [list(position) for position in sample.logprobs] == [[97, 98], [195, 97]]
    entry = sample.logprobs[0][97]
    assert (entry.logprob, entry.rank, entry.decoded_token) == (-1.5, 2, "a")
    assert sample.logprobs[1][195].decoded_token == "\N{REPLACEMENT CHARACTER}"


def test_prompt_logprobs_are_put_together_from_chunks(byte_tokenizer: Tokenizer) -> None:
    harness = Harness(byte_tokenizer)
    harness.add(prompt_logprobs=0)
    harness.step(prompt_logprobs={"r": [TokenLogprobs([2], [-1.0], [1])]})
    [output] = harness.step(
        ("r", 65),
        prompt_logprobs={"r": [TokenLogprobs([3], [-2.0], [4])]},
        finished={"r": ended(FinishReason.LENGTH)},
    )
    assert output.prompt_logprobs is not None
    first, *others = output.prompt_logprobs
    assert first is None
    assert [{token: one.logprob for token, one in position.items()} for position in others if position] == [
        {2: -1.0},
        {3: -2.0},
    ]


def test_without_logprobs_there_are_none(byte_tokenizer: Tokenizer) -> None:
    harness = Harness(byte_tokenizer)
    harness.add()
    [output] = harness.step(("r", 65), finished={"r": ended(FinishReason.LENGTH)})
    assert output.prompt_logprobs is None
    assert (output.outputs[0].logprobs, output.outputs[0].cumulative_logprob) == (None, None)


def test_metrics(byte_tokenizer: Tokenizer) -> None:
    harness = Harness(byte_tokenizer, stream=True)
    first, second = (request.request_id for request in harness.add(n=2).engine_requests)
    started = {first: Started(0.5, 16), second: Started(0.75, 99)}
    [early] = harness.step((first, 65), started=started)  # at 1.0
    harness.step((first, 65), (second, 65))  # at 2.0
    harness.time = 4.0
    harness.step((first, 65), finished={first: ended(FinishReason.LENGTH, None, 1)})  # at 5.0
    [output] = harness.step((second, 65), finished={second: ended(FinishReason.LENGTH, None, 2)})  # at 6.0
    metrics = output.metrics
    assert metrics is not None
    assert output.num_cached_tokens == 16
    assert metrics.first_scheduled_time == 0.5
    assert metrics.first_token_time == 1.0
    assert (metrics.last_token_time, metrics.finished_time) == (6.0, 6.0)
    assert metrics.inter_token_latencies == [1.0, 3.0]
    assert metrics.num_preemptions == 3
    assert metrics.ttft == 1.0 - metrics.arrival_time
    assert early.metrics is not None
    assert early.metrics.inter_token_latencies == [], "an earlier output does not change afterwards"
    assert early.outputs[0].token_ids == [65]


def test_a_request_that_fails_says_why_and_keeps_its_text(byte_tokenizer: Tokenizer) -> None:
    harness = Harness(byte_tokenizer)
    harness.add(stop="ab")
    harness.step(("r", ord("x")), ("r", ord("a")))
    [output] = harness.step(finished={"r": ended(FinishReason.ERROR, "the processor raised")})
    sample = output.outputs[0]
    assert (sample.text, sample.finish_reason, sample.stop_reason) == ("xa", "error", "the processor raised")


def test_what_is_forgotten_is_ignored_and_its_unfinished_samples_are_named(byte_tokenizer: Tokenizer) -> None:
    harness = Harness(byte_tokenizer)
    first, second = (request.request_id for request in harness.add(n=2).engine_requests)
    harness.add("other")
    harness.step((first, 65), finished={first: ended(FinishReason.LENGTH)})
    assert harness.outputs.forget(["r", "unknown"]) == [second]
    assert harness.step((second, 65), started={second: Started(0.0, 0)}) == []
    assert harness.outputs.num_requests == 1
