"""What crosses between the processes: every message comes back as it was, and nothing else is taken."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from vcore import errors
from vcore.engine.input_processor import InputProcessor
from vcore.engine.pooling import ModelPooling
from vcore.engine.remote.codec import decode_from_engine, decode_to_engine, encode
from vcore.engine.remote.error_message import ErrorMessage
from vcore.engine.remote.messages import (
    AbortRequests,
    AddRequest,
    Call,
    EngineDied,
    FinishRequest,
    FromEngine,
    HealthChanged,
    Ready,
    Refused,
    Reply,
    Shutdown,
    StartFailed,
    StepDone,
    ToEngine,
)
from vcore.engine.request import FinishReason
from vcore.engine.step_output import Finished, Started, StepOutput
from vcore.interfaces.step import TokenLogprobs
from vcore.kv_cache.block_map import BlockMap
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams
from vcore.scheduler.settings import SchedulerStats

STATS = SchedulerStats(
    running=1,
    waiting=2,
    used_blocks=3,
    free_blocks=4,
    cached_blocks=5,
    prefix_query_tokens=6,
    prefix_hit_tokens=7,
    preemptions=8,
)
BLOCKS = BlockMap(num_blocks=3, block_size=16, used=1, free=1, cached=0, states=b"\0\1\0")
ERROR = ErrorMessage("RequestError", "no", "n")
OUTPUT = StepOutput(
    ["a", "b", "a"],
    [1, 2, 3],
    started={"a": Started(1.5, 4)},
    finished={
        "a": Finished(FinishReason.STOP, 7, 1),
        "b": Finished(FinishReason.STOP, "stop", 0),
        "c": Finished(FinishReason.ABORT, None, 0),
    },
    logprobs={"a": [TokenLogprobs([1, 2], [-0.5, float("-inf")], [1, 2])]},
    prompt_logprobs={"b": [TokenLogprobs([1], [-0.25], [1])]},
    vectors={"d": b"\0\0\x80\x3f"},
    time=2.5,
    step_id=9,
    num_requests=2,
    num_prompt_tokens=30,
    num_decodes=1,
)
TO_ENGINE = [
    AddRequest(("a.0", "a.1"), b"\1\0\0\0", b"{}", b"{}", 5, 1.0, (2,), 3, ((1, 2), (3,)), ("salt:x",)),
    AddRequest(("a",), b"\1\0\0\0", b"{}", None, 0, 1.0, (), 0, (), (), "mean"),
    AbortRequests(("a", "b")),
    FinishRequest("a", 3, "stop"),
    Call(1, "start_profile", "/tmp"),
    Shutdown(),
]
FROM_ENGINE = [
    Ready(b"{}", 10, 20, (1,), None, {"plugins": []}),
    Ready(b"{}", 10, 20, (1,), None, {"plugins": []}, ModelPooling(mode="last", size=4, normalize=False)),
    StartFailed(ERROR),
    StepDone(OUTPUT, STATS, 1.0, 2.0),
    Refused(("a",), 0, ERROR),
    Reply(1, None, STATS, BLOCKS, False),
    HealthChanged(("fault",), 3),
    EngineDied("gone"),
]


def test_the_lists_above_have_every_message():
    assert {type(message) for message in TO_ENGINE} == set(ToEngine.__args__)
    assert {type(message) for message in FROM_ENGINE} == set(FromEngine.__args__)


@pytest.mark.parametrize("message", TO_ENGINE, ids=lambda message: type(message).__name__)
def test_messages_to_the_engine(message: ToEngine):
    assert decode_to_engine(encode(message)) == message


@pytest.mark.parametrize("message", FROM_ENGINE, ids=lambda message: type(message).__name__)
def test_messages_from_the_engine(message: FromEngine):
    assert decode_from_engine(encode(message)) == message


@pytest.mark.parametrize("data", [b"", b"\0", pickle.dumps(STATS), encode(["add", 1]), encode(TO_ENGINE[0])])
def test_anything_else_is_refused(data: bytes):
    with pytest.raises(msgspec.DecodeError):
        decode_from_engine(data)


def test_a_prompt_takes_four_bytes_a_token_once():
    inputs = InputProcessor(tokenizer=None, vocab_size=200_000, max_model_len=200_000)
    prompt = [150_000] * 100_000
    processed = inputs.process(prompt, SamplingParams(n=8, prompt_logprobs=1, max_tokens=5), request_id="r")
    message = AddRequest.of(processed)
    assert len(message.prompt) == 400_000
    assert len(encode(message)) < 401_000
    sent = decode_to_engine(encode(message)).engine_requests()
    assert sent == list(processed.engine_requests)
    assert len({id(one.prompt_token_ids) for one in sent}) == 1


def test_a_prompt_that_pools_crosses_with_its_mode_and_a_vector_takes_four_bytes_a_feature():
    pooling = ModelPooling(mode="mean", size=4096)
    inputs = InputProcessor(tokenizer=None, vocab_size=100, max_model_len=10, pooling=pooling)
    processed = inputs.process_embedding([1, 2], PoolingParams(cache_salt="s", priority=1), request_id="r")
    sent = decode_to_engine(encode(AddRequest.of(processed))).engine_requests()
    assert sent == list(processed.engine_requests)
    output = StepOutput(vectors={"r": bytes(4 * 4096)}, finished={"r": Finished(FinishReason.STOP, None, 0)})
    assert len(encode(StepDone(output, STATS, 1.0, 2.0))) < 4 * 4096 + 500


def test_the_step_message_of_a_large_batch_is_small():
    output = StepOutput([f"chatcmpl-{index:032x}" for index in range(256)], [100_000] * 256)
    assert len(encode(StepDone(output, STATS, 1.0, 2.0))) < 16_000


def test_an_error_is_raised_again_as_what_it_was():
    for name in errors.__all__:
        error = getattr(errors, name)("what happened")
        again = ErrorMessage.of(error).error()
        assert (type(again), str(again)) == (type(error), "what happened")

    class Own(errors.RequestTooLargeError):
        """A plugin's."""

    again = ErrorMessage.of(Own("long", param="prompt")).error()
    assert (type(again), again.param) == (errors.RequestTooLargeError, "prompt")
    assert str(ErrorMessage.of(KeyError("x")).error()) == "KeyError: 'x'"
