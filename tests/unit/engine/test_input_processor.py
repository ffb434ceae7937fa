"""`InputProcessor`: what an engine request holds, and that every bad input is refused with what, where and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vcore.engine.input_processor import InputProcessor
from vcore.errors import PluginNotFoundError, PluginOptionsError, RequestError, RequestTooLargeError
from vcore.sampling_params import LogitsProcessorRequest, SamplingParams
from vcore.tokenizer import Tokenizer


def processor(tokenizer: Tokenizer | None, **values: Any) -> InputProcessor:
    defaults = {"vocab_size": 260, "max_model_len": 32, "eos_token_ids": (256, 257), "seed": 7}
    return InputProcessor(tokenizer=tokenizer, **(defaults | values))


@pytest.fixture(scope="module")
def with_text(byte_tokenizer: Tokenizer) -> InputProcessor:
    return processor(byte_tokenizer)


@pytest.mark.parametrize(
    ("prompt", "text", "ids"),
    [
        ("hé", "hé", [104, 195, 169]),
        ({"prompt": "hi"}, "hi", [104, 105]),
        ([1, 2, 3], None, [1, 2, 3]),
        ((1, 2, 3), None, [1, 2, 3]),
        ([np.int64(1), 2], None, [1, 2]),
        ({"prompt_token_ids": [5, 6]}, None, [5, 6]),
        ({"prompt_token_ids": [5], "prompt": "shown"}, "shown", [5]),
    ],
)
def test_every_form_of_prompt(with_text: InputProcessor, prompt: Any, text: str | None, ids: list[int]) -> None:
    processed = with_text.process(prompt, SamplingParams(), request_id="r")
    assert processed.prompt == text
    assert processed.prompt_token_ids == ids
    assert all(type(token) is int for token in processed.prompt_token_ids)
    [engine_request] = processed.engine_requests
    assert engine_request.request_id == "r"
    assert engine_request.prompt_token_ids == ids


BAD_PROMPTS = [
    ("", "the prompt is empty"),
    ([], "the prompt is empty"),
    ({"prompt": ""}, "the prompt is empty"),
    ({"prompt_token_ids": []}, "the prompt is empty"),
    ({}, "neither text nor token ids"),
    ({"promt": "x"}, "no key 'promt'; known: prompt, prompt_token_ids"),
    ({"prompt": 5}, "must be a string, got int"),
    ({"prompt_token_ids": "12"}, "must be a list of integers, got str"),
    ([1, 2, True], r"got True \(bool\) at position 2"),
    ([1, 2.0], r"got 2.0 \(float\) at position 1"),
    ([1, "2"], r"got '2' \(str\) at position 1"),
    ([1, None], r"got None \(NoneType\) at position 1"),
    ([1, -3], "has -3 at position 1, which is outside the vocabulary: token ids are 0 to 259"),
    ([0, 259, 260], "has 260 at position 2, which is outside"),
    (7, "cannot be of type int"),
    (b"bytes", "cannot be of type bytes"),
    (None, "cannot be of type NoneType"),
    (np.array([1, 2]), r"cannot be of type ndarray.*call its .tolist\(\)"),
    ("a\ud800b", r"lone surrogate U\+D800 at character 1"),
]


@pytest.mark.parametrize(("prompt", "message"), BAD_PROMPTS, ids=[message for _, message in BAD_PROMPTS])
def test_bad_prompts(with_text: InputProcessor, prompt: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        with_text.process(prompt, SamplingParams(), request_id="r")


BAD_PARAMS: list[tuple[dict[str, Any], str, str]] = [
    ({"stop_token_ids": [3, 260]}, "stop_token_ids", "has 260 at position 1"),
    ({"allowed_token_ids": [-1]}, "allowed_token_ids", "has -1 at position 0"),
    ({"logit_bias": {999: 1.0}}, "logit_bias", "has 999"),
    ({"stop": "\udcff"}, "stop", "lone surrogate"),
    ({"bad_words": "\udcff"}, "bad_words", "lone surrogate"),
    ({"cache_salt": "\udcff"}, "cache_salt", "lone surrogate"),
    ({"min_tokens": 31, "max_tokens": None}, "min_tokens", "leaves room for 30"),
    ({"allowed_token_ids": [97, 98], "bad_words": ["a", "b"]}, "bad_words", "contradict"),
    ({"allowed_token_ids": [256, 5], "stop_token_ids": [5], "min_tokens": 1}, "allowed_token_ids", "min_tokens=1"),
    ({"logits_processors": "nothing"}, "logits_processors", "no logits processor 'nothing'"),
]


@pytest.mark.parametrize(("params", "param", "message"), BAD_PARAMS, ids=[str(params) for params, _, _ in BAD_PARAMS])
def test_bad_parameters(with_text: InputProcessor, params: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        with_text.process([1, 2], SamplingParams(**params), request_id="r")
    assert caught.value.param == param


@pytest.mark.parametrize(("prompt", "params"), [("text", {}), ([1], {"stop": "x"}), ([1], {"bad_words": "x"})])
def test_text_needs_a_tokenizer(prompt: Any, params: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"no tokenizer \(model.skip_tokenizer"):
        processor(None).process(prompt, SamplingParams(**params), request_id="r")


def test_a_prompt_or_word_of_no_tokens(char_tokenizer: Tokenizer) -> None:
    inputs = processor(char_tokenizer)
    with pytest.raises(RequestError, match="turns the prompt '123' into no tokens"):
        inputs.process("123", SamplingParams(), request_id="r")
    with pytest.raises(RequestError, match="bad_words has '5', which the tokenizer turns into no tokens"):
        inputs.process("abc", SamplingParams(bad_words="5"), request_id="r")


def test_length_is_refused_with_the_numbers_and_cuts_max_tokens(with_text: InputProcessor) -> None:
    with pytest.raises(RequestTooLargeError, match="has 32 tokens, and at most 31 fit: max_model_len=32"):
        with_text.process([1] * 32, SamplingParams(), request_id="r")

    def max_tokens(length: int, wanted: int | None) -> int:
        params = SamplingParams(max_tokens=wanted)
        return with_text.process([1] * length, params, request_id="r").engine_requests[0].max_tokens

    assert max_tokens(31, 5) == 1
    assert max_tokens(2, 5) == 5
    assert max_tokens(2, 500) == 30
    assert max_tokens(2, None) == 30


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised(byte_tokenizer: Tokenizer) -> None:
    longest = max(len(byte_tokenizer.id_to_token(token) or "") for token in range(byte_tokenizer.vocab_size))
    told = f"has {32 * longest + 1} characters, so at least 33 tokens, and the model's length is max_model_len=32"

    def never(*_: Any, **__: Any) -> list[int]:
        raise AssertionError("it was tokenised")

    class Refusing(Tokenizer):
        __slots__ = ()
        encode = never

    tokenizer = Refusing.__new__(Refusing)
    for slot in Tokenizer.__slots__:
        setattr(tokenizer, slot, getattr(byte_tokenizer, slot))
    inputs = processor(tokenizer)
    with pytest.raises(RequestTooLargeError, match=told) as caught:
        inputs.process("a" * (32 * longest + 1), SamplingParams(), request_id="r")
    assert caught.value.param == "prompt"
    with pytest.raises(AssertionError, match="it was tokenised"):
        inputs.process("a" * (32 * longest), SamplingParams(), request_id="r")


def test_eos_is_the_models_unless_it_is_ignored(with_text: InputProcessor) -> None:
    def eos(**params: Any) -> tuple[int, ...]:
        return with_text.process([1], SamplingParams(**params), request_id="r").engine_requests[0].eos_token_ids

    assert eos() == (256, 257)
    assert eos(ignore_eos=True) == ()


def test_n_samples_are_n_engine_requests_and_the_prompts_logprobs_are_asked_for_once(with_text: InputProcessor) -> None:
    params = SamplingParams(n=3, prompt_logprobs=1, seed=5)
    requests = with_text.process([1, 2], params, request_id="r").engine_requests
    assert [request.sample_index for request in requests] == [0, 1, 2]
    assert len({request.request_id for request in requests}) == 3
    assert [request.params.prompt_logprobs for request in requests] == [1, None, None]
    assert {request.seed for request in requests} == {5}


def test_seeds_are_drawn_from_the_engines_seed_in_order(byte_tokenizer: Tokenizer) -> None:
    def draw(seed: int, count: int = 3) -> list[int]:
        inputs = processor(byte_tokenizer, seed=seed)
        drawn = (inputs.process([1], SamplingParams(), request_id="r") for _ in range(count))
        return [request.engine_requests[0].seed for request in drawn]

    assert draw(7) == draw(7)
    assert len(set(draw(7))) == 3
    assert set(draw(7)).isdisjoint(draw(8))
    assert all(0 <= seed < 2**63 for seed in draw(7))


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 2**70 + 3, -1])
def test_a_given_seed_fits_63_bits(with_text: InputProcessor, seed: int) -> None:
    [request] = with_text.process([1], SamplingParams(seed=seed), request_id="r").engine_requests
    assert request.seed == seed % 2**63


def test_bad_words_pass_as_ids_with_and_without_a_leading_space(with_text: InputProcessor) -> None:
    params = SamplingParams(bad_words=["no", " no", "ah"])
    [request] = with_text.process([1], params, request_id="r").engine_requests
    assert request.bad_words_token_ids == tuple(map(tuple, (b"no", b" no", b"ah", b" ah")))


def test_the_salt_tells_blocks_apart(with_text: InputProcessor) -> None:
    def keys(salt: str | None) -> tuple[str, ...]:
        return with_text.process([1], SamplingParams(cache_salt=salt), request_id="r").engine_requests[0].extra_keys

    assert keys(None) == ()
    assert keys("a") != keys("b")
    assert keys("") != ()


def test_logits_processors_come_out_as_the_check_returns_them(byte_tokenizer: Tokenizer) -> None:
    def check(asked: LogitsProcessorRequest) -> LogitsProcessorRequest:
        return asked.model_copy(update={"options": {"filled": "in"}})

    inputs = processor(byte_tokenizer, check_processor=check)
    processed = inputs.process([1], SamplingParams(logits_processors=["one"], n=2), request_id="r")
    for request in processed.engine_requests:
        assert request.params.logits_processors == (LogitsProcessorRequest(name="one", options={"filled": "in"}),)


class FakeCatalog:
    """One processor, ``known``, that takes an integer `k`."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def find(self, kind: str, name: str) -> str:
        if name != "known":
            raise PluginNotFoundError(f"no logits_processor {name!r}; installed: known")
        return name

    def load(self, entry: str) -> None:
        self.loaded.append(entry)

    def parse_options(self, entry: str, raw: dict[str, Any]) -> Any:
        from pydantic import BaseModel, ValidationError

        class Options(BaseModel, extra="forbid"):
            k: int = 3

        try:
            return Options(**raw)
        except ValidationError as error:
            raise PluginOptionsError(str(error)) from error


def test_processors_are_looked_up_in_the_catalog_and_never_imported_by_name(byte_tokenizer: Tokenizer) -> None:
    from vcore.engine.processor_options import ProcessorOptions

    catalog = FakeCatalog()
    inputs = processor(byte_tokenizer, check_processor=ProcessorOptions(catalog).check)  # type: ignore[arg-type]

    def process(asked: Any) -> Any:
        params = SamplingParams(logits_processors=asked)
        return inputs.process([1], params, request_id="r").engine_requests[0].params.logits_processors

    assert process("known")[0].options == {"k": 3}
    assert process({"name": "known", "options": {"k": "5"}})[0].options == {"k": 5}
    assert catalog.loaded == ["known"], "it is imported once, before the first request enters"
    for asked, message in [
        ("os:system", "no logits_processor 'os:system'; installed: known"),
        ({"name": "known", "options": {"j": 1}}, "Extra inputs"),
        ({"name": "known", "options": {"k": "many"}}, "valid integer"),
    ]:
        with pytest.raises(RequestError, match=message) as caught:
            process(asked)
        assert caught.value.param == "logits_processors"


def test_a_logits_processor_serves_a_request_once() -> None:
    with pytest.raises(RequestError, match="logits_processors names one twice"):
        SamplingParams(logits_processors=["quiet", {"name": "quiet", "options": {"loud": True}}])


def test_a_form_becomes_the_last_logits_processor(byte_tokenizer: Tokenizer) -> None:
    asked = LogitsProcessorRequest(name="forms", options={"regex": "a"})
    inputs = processor(byte_tokenizer, check_processor=lambda one: one, form_processor=lambda form: asked)
    params = SamplingParams(structured_output={"regex": "a"}, logits_processors=["other"], n=2)
    requests = inputs.process([1], params, request_id="r").engine_requests
    for request in requests:
        assert [one.name for one in request.params.logits_processors] == ["other", "forms"]
    params = SamplingParams(structured_output={"regex": "a"}, logits_processors=["forms"])
    with pytest.raises(RequestError, match="'forms', which the request also names") as caught:
        inputs.process([1], params, request_id="r")
    assert caught.value.param == "logits_processors"


def test_a_form_is_refused_where_nothing_serves_forms(byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="this engine has no plugin for it") as caught:
        processor(byte_tokenizer).process([1], SamplingParams(structured_output={"regex": "a"}), request_id="r")
    assert caught.value.param == "structured_output"
