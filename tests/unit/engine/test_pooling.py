"""Embeddings on their way in and out: parameters, checks, vectors, and `LLM.embed` over a core that plays back."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vcore import PoolingParams, RequestError, SamplingParams
from vcore.engine.input_processor import InputProcessor
from vcore.engine.pooling import NO_POOLING, ModelPooling, finish_vector
from vcore.errors import RequestTooLargeError

POOLING = ModelPooling(mode="mean", size=3, normalize=False)
MakeLLM = Callable[..., Any]


def processor(**values: Any) -> InputProcessor:
    given: dict[str, Any] = {"tokenizer": None, "vocab_size": 100, "max_model_len": 8, "pooling": POOLING} | values
    return InputProcessor(**given)


@pytest.mark.parametrize(
    ("values", "says", "param"),
    [
        ({"dimensions": 0}, "dimensions.*greater than or equal to 1", "dimensions"),
        ({"tenant": ""}, "tenant", "tenant"),
        ({"normalise": True}, "no 'normalise'; did you mean 'normalize'", "normalise"),
        ({"n": 2}, "known: normalize, dimensions", "n"),
    ],
)
def test_params_are_checked_when_they_are_made(values: dict[str, Any], says: str, param: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        PoolingParams(**values)
    assert caught.value.param == param


def test_a_request_is_what_the_core_needs() -> None:
    params = PoolingParams(priority=2, tenant="t", cache_salt="s")
    processed = processor(eos_token_ids=(5,)).process_embedding([1, 2], params, request_id="r")
    [request] = processed.engine_requests
    assert (request.request_id, request.prompt_token_ids, request.pooling) == ("r", [1, 2], "mean")
    assert (request.max_tokens, request.eos_token_ids) == (0, ())
    assert (request.params.priority, request.params.tenant, request.extra_keys) == (2, "t", ("salt:s",))
    assert processed.pooling == params.model_copy(update={"normalize": False})


@pytest.mark.parametrize(("asked", "made"), [(None, False), (True, True), (False, False)])
def test_what_a_request_does_not_say_the_model_does(asked: bool | None, made: bool) -> None:
    processed = processor().process_embedding([1], PoolingParams(normalize=asked), request_id="r")
    assert processed.pooling is not None
    assert processed.pooling.normalize is made


def test_the_same_salt_shares_with_texts() -> None:
    inputs = processor()
    embeds = inputs.process_embedding([1], PoolingParams(cache_salt="s"), request_id="a").engine_requests[0]
    generates = inputs.process([1], SamplingParams(cache_salt="s"), request_id="b").engine_requests[0]
    assert embeds.extra_keys == generates.extra_keys


@pytest.mark.parametrize(
    ("prompt", "params", "error", "says", "param"),
    [
        ([1] * 9, {}, RequestTooLargeError, "has 9 tokens, and at most max_model_len=8 fit", "prompt"),
        ([100], {}, RequestError, "outside the vocabulary", "prompt_token_ids"),
        ([], {}, RequestError, "empty", "prompt_token_ids"),
        ("text", {}, RequestError, "no tokenizer", "prompt"),
        ([1], {"dimensions": 4}, RequestError, "dimensions=4, but the model's embeddings have 3", "dimensions"),
    ],
)
def test_what_is_wrong_is_refused(
    prompt: Any, params: dict[str, Any], error: type[Exception], says: str, param: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        processor().process_embedding(prompt, PoolingParams(**params), request_id="r")
    assert caught.value.param == param  # type: ignore[attr-defined]
    assert processor().process_embedding([1] * 8, PoolingParams(dimensions=3), request_id="r")


def test_without_pooling_the_remedy_is_named() -> None:
    inputs = processor(pooling=ModelPooling(why_not="1_Pooling/config.json asks for the pooling 'cls'"))
    with pytest.raises(RequestError, match=r"asks for the pooling 'cls'.*model\.pooling=last.*model\.pooling=mean"):
        inputs.process_embedding([1], PoolingParams(), request_id="r")
    with pytest.raises(RequestError, match=r"model\.pooling is none"):
        NO_POOLING.require()


@pytest.mark.parametrize(
    ("params", "vector"),
    [
        ({"normalize": False}, [3.0, 4.0, 12.0]),
        ({"normalize": False, "dimensions": 2}, [3.0, 4.0]),
        ({"normalize": True, "dimensions": 2}, [0.6, 0.8]),
        ({"normalize": True}, [3 / 13, 4 / 13, 12 / 13]),
    ],
)
def test_vectors_are_cut_and_then_scaled(params: dict[str, Any], vector: list[float]) -> None:
    found = finish_vector(array("f", [3.0, 4.0, 12.0]).tobytes(), PoolingParams(**params))
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx(vector)
    found[0] = 0.0  # the caller's own


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_neither_overflow_nor_vanish(scale: float) -> None:
    found = finish_vector(array("f", [3 * scale, 4 * scale]).tobytes(), PoolingParams(normalize=True))
    assert found.tolist() == pytest.approx([0.6, 0.8])


def test_zeros_stay_zeros() -> None:
    assert finish_vector(array("f", [0.0, 0.0]).tobytes(), PoolingParams(normalize=True)).tolist() == [0.0, 0.0]


def test_embed_answers_in_the_order_of_the_prompts(make_llm: MakeLLM) -> None:
    llm, _ = make_llm(pooling=POOLING)
    outputs = llm.embed(["abcd", [4, 5, 6]], progress=False)
    assert [output.embedding.tolist() for output in outputs] == [[97.0, 98.0, 99.0], [4.0, 5.0, 6.0]]
    first = outputs[0]
    assert (first.prompt, first.num_prompt_tokens, first.num_cached_tokens) == ("abcd", 4, 2)
    assert (first.finish_reason, first.error) == ("stop", None)
    assert first.metrics.ttft is None
    assert first.metrics.finished_time is not None
    [single] = llm.embed("abcd", PoolingParams(dimensions=2, normalize=True), progress=False)
    assert np.linalg.norm(single.embedding) == pytest.approx(1.0)
    assert llm.embed([], progress=False) == []


def test_embed_and_generate_share_a_core(make_llm: MakeLLM) -> None:
    llm, core = make_llm(pooling=POOLING)
    stream = llm.stream("abc", SamplingParams(max_tokens=5))
    next(stream)
    [output] = llm.embed("abc", progress=False)
    assert output.embedding is not None
    assert [one.outputs[0].text for one in stream][-1] == "okoko"
    assert not core.running


def test_one_that_fails_says_why_and_leaves_the_others(make_llm: MakeLLM, caplog: pytest.LogCaptureFixture) -> None:
    llm, core = make_llm(pooling=POOLING)
    core.errors["request-1"] = "not finite"
    good, bad = llm.embed(["abc", "def"], progress=False)
    assert good.embedding is not None
    assert (bad.embedding, bad.finish_reason, bad.error) == (None, "error", "not finite")
    assert "not finite" in caplog.text


def test_one_wrong_prompt_keeps_all_out(make_llm: MakeLLM) -> None:
    llm, core = make_llm(pooling=POOLING)
    with pytest.raises(RequestError, match="prompt 1 of 2"):
        llm.embed(["abc", [999]], progress=False)
    with pytest.raises(RequestError, match="must be a PoolingParams, got SamplingParams"):
        llm.embed("abc", SamplingParams())
    assert not core.running


def test_an_engine_without_pooling_says_so_whatever_is_asked(make_llm: MakeLLM) -> None:
    llm, _ = make_llm()
    for prompts in ("abc", ["abc", "def"], []):
        with pytest.raises(RequestError, match=r"^this engine makes no embeddings"):
            llm.embed(prompts)
