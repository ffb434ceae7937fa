"""``/v1/embeddings``: forms of input, forms of vectors, what is refused, and what ends early."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest

from vcore.engine.pooling import ModelPooling
from vcore.errors import EngineDeadError
from vcore.server.errors import ApiError

POOLING = ModelPooling(mode="last", size=4, normalize=False)
PATH = "/v1/embeddings"


@pytest.fixture
def embedder(make_server: Any, scripted: Any) -> Any:
    return make_server(scripted(pooling=POOLING))


def vectors(answer: Any) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["object"] == "list"
    assert [item["index"] for item in body["data"]] == list(range(len(body["data"])))
    assert {item["object"] for item in body["data"]} == {"embedding"}
    return [item["embedding"] for item in body["data"]]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a", [[1, 97, 0, 0]]),
        (["a", "bc"], [[1, 97, 0, 0], [2, 98, 99, 0]]),
        ([7, 8, 9, 10], [[4, 7, 8, 9]]),
        ([[7], [8, 9]], [[1, 7, 0, 0], [2, 8, 9, 0]]),
    ],
)
def test_every_form_of_input(embedder: Any, value: Any, found: list[list[float]]) -> None:
    answer = embedder.post(PATH, {"input": value, "user": "somebody"})
    assert vectors(answer) == found
    body = answer.json()
    assert body["model"] == "scripted"
    num_tokens = sum(int(vector[0]) for vector in found)
    assert body["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def test_base64_is_float32_in_little_endian_order(embedder: Any) -> None:
    [text] = vectors(embedder.post(PATH, {"input": "ab", "encoding_format": "base64"}))
    assert np.frombuffer(base64.b64decode(text), dtype="<f4").tolist() == [2, 97, 98, 0]


def test_leading_features_and_length_1_on_demand(embedder: Any) -> None:
    asked = {"input": [[4, 5]], "dimensions": 2, "normalize": True}
    [vector] = vectors(embedder.post(PATH, asked))
    assert vector == pytest.approx([2 / 20**0.5, 4 / 20**0.5])


def test_what_is_for_the_scheduler_reaches_it(embedder: Any) -> None:
    assert embedder.post(PATH, {"input": "a", "priority": 3, "tenant": "t", "cache_salt": "s"}).status_code == 200
    [request] = embedder.engine.served
    assert (request.params.priority, request.params.tenant, request.extra_keys) == (3, "t", ("salt:s",))


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({}, "input", "required"),
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty list"),
        ({"input": ["a", ""]}, "input", "position 1"),
        ({"input": [[1], []]}, "input", "list"),
        ({"input": ["a", 1]}, "input", "list"),
        ({"input": ["a"] * 2049}, "input", "2048"),
        ({"input": "a" * 300}, "input", "max_model_len=256"),
        ({"input": [[1], [1] * 257]}, "input", "input 1 of 2"),
        ({"input": [[1], [999]]}, "input", "input 1 of 2 (counted from 0): input has 999 at position 0"),
        ({"input": [999]}, "input", "input has 999 at position 0"),
        ({"input": "a", "dimensions": 5}, "dimensions", "have 4"),
        ({"input": "a", "dimensions": 0}, "dimensions", ""),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", ""),
    ],
)
def test_what_is_wrong_is_named(embedder: Any, body: dict[str, Any], param: str, says: str) -> None:
    answer = embedder.post(PATH, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert "prompt_token_ids" not in error["message"]
    assert says in error["message"]
    assert embedder.engine.open_ids == []


def test_as_many_tokens_as_the_model_takes_will_do(embedder: Any) -> None:
    assert vectors(embedder.post(PATH, {"input": [1] * 256})) == [[256, 1, 1, 1]]


def test_without_pooling_it_is_refused_with_the_remedy(server: Any) -> None:
    error = server.post(PATH, {"input": "a"}).json()["error"]
    assert "model.pooling=last" in error["message"]
    assert error["param"] == "model"
    assert server.post(PATH, {"input": "a", "model": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [("NaN", 500, "embedding_failed"), (EngineDeadError("killed"), 503, "engine_unavailable")],
)
def test_one_that_fails_ends_its_request(embedder: Any, failure: Any, status: int, code: str) -> None:
    embedder.engine.failures[0] = failure
    answer = embedder.post(PATH, {"input": ["a", "b"]})
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert embedder.app.state.context.admission.num_requests == 0


def held(server: Any, act: Any, num_inputs: int = 3) -> Any:
    """The answer to a request that the engine holds, while `act` is done."""

    async def run() -> Any:
        server.engine.may_step = asyncio.Event()
        async with server.client() as client:
            asked = asyncio.create_task(client.post(PATH, json={"input": ["a"] * num_inputs}))
            async with asyncio.timeout(10):
                while not server.engine.open_ids:
                    await asyncio.sleep(0)
            act(server)
            return await asked

    return asyncio.run(run())


def test_a_long_list_leaves_the_queue_to_others(make_server: Any, scripted: Any) -> None:
    """Two at a time, in the order of the list, whatever its length; others still find room."""
    engine = scripted(pooling=POOLING, overrides={"scheduler.max_num_seqs": 2})
    server, seen = make_server(engine, max_queue=0), []

    def act(server: Any) -> None:
        seen.extend(server.engine.open_ids)
        server.engine.may_step.set()

    assert vectors(held(server, act, num_inputs=5)) == [[1, 97, 0, 0]] * 5
    assert len(seen) == 2
    assert len(engine.served) == 5


def test_a_stop_aborts_what_runs(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(pooling=POOLING))
    answer = held(server, lambda server: server.app.state.context.admission.stop_all(ApiError(503, "over")))
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "over")
    assert len(server.engine.aborted) == 3


def test_a_request_that_takes_too_long_is_ended(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(pooling=POOLING), request_timeout_s=0.05)
    answer = held(server, lambda server: None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "request_timeout")
    assert len(server.engine.aborted) == 3


def test_a_full_queue_refuses(make_server: Any, scripted: Any) -> None:
    engine = scripted(pooling=POOLING, overrides={"scheduler.max_num_seqs": 2})
    server, answers = make_server(engine, max_queue=1), []

    async def run() -> None:
        engine.may_step = asyncio.Event()
        async with server.client() as client:
            first = asyncio.create_task(client.post(PATH, json={"input": ["a", "b", "c"]}))
            async with asyncio.timeout(10):
                while not engine.open_ids:
                    await asyncio.sleep(0)
            answers.append(await client.post(PATH, json={"input": ["a", "b"]}))
            engine.may_step.set()
            answers.append(await first)

    asyncio.run(run())
    assert [answer.status_code for answer in answers] == [429, 200]
