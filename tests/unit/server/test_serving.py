"""What happens to open requests: failures in mid-stream, clients that leave, room, time, the end of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vcore.errors import EngineDeadError, RequestError, RequestTooLargeError
from vcore.sampling_params import SamplingParams
from vcore.server.errors import ApiError
from vcore.server.field_names import FieldNames

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
BODY = {"prompt": "hi"}
MESSAGES = [{"role": "user", "content": "hi"}]
STREAM = {"prompt": "hi", "stream": True}


class Connection:
    """One HTTP exchange, driven by hand through ASGI, so that a client can leave in the middle."""

    def __init__(self, app: Any, path: str, body: dict[str, Any], send: Any = None) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._leave = asyncio.Event()
        self._body: bytes | None = json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [(b"content-type", b"application/json"), (b"host", b"server")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, send or self.sent.put))

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._leave.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self._leave.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def run(server: Any, work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        server.engine.may_step = asyncio.Event()
        server.engine.may_step.set()
        await work()

    asyncio.run(main())


# Failures


def test_a_failure_before_the_engine_is_asked_is_told(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("vcore.server.generation.note_request", fail)
    response = server.post(COMPLETIONS, BODY)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        ("the step failed", 500, "generation_failed"),
        (EngineDeadError("the engine's process was killed (signal 9)"), 503, "engine_unavailable"),
        (RuntimeError("secret"), 500, "internal_error"),
    ],
)
def test_a_failure_is_an_error_with_its_cause(
    make_server: Any, scripted: Any, failure: Any, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(scripted(failures={3: failure}))
    response = server.post(COMPLETIONS, BODY)
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", code)
    assert ("secret" in error["message"]) is False
    assert ("secret" in caplog.text) is (code == "internal_error")
    *pieces, last = server.stream(COMPLETIONS, BODY)
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == "hel"
    assert last == {"error": error}
    assert server.engine.open_ids == []


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("param", ["structured_output.grammar", ""])
def test_what_the_client_asked_for_may_be_why_a_request_cannot_go_on(
    make_server: Any, scripted: Any, step: int, param: str
) -> None:
    server = make_server(scripted(failures={step: ("the grammar is too complex here", param)}))
    response = server.post(COMPLETIONS, BODY)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error == {
        "message": "the grammar is too complex here",
        "type": "invalid_request_error",
        "param": param or None,
        "code": None,
    }
    if step:
        assert server.stream(COMPLETIONS, BODY)[-1] == {"error": error}
    else:
        assert server.post(COMPLETIONS, STREAM).json() == {"error": error}
    assert server.engine.open_ids == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (COMPLETIONS, {"guided_grammar": 'start: "a"'}, "guided_grammar"),
        (COMPLETIONS, {"response_format": {"type": "json_object"}}, "response_format"),
        (COMPLETIONS, {"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_a_form_is_called_by_the_field_that_asked_for_it(
    server: Any, path: str, body: dict[str, Any], field: str
) -> None:
    prompt = BODY if path == COMPLETIONS else {"messages": [{"role": "user", "content": "x"}]}
    for stream in (False, True):
        error = server.post(path, prompt | body | {"stream": stream}).json()["error"]
        assert (error["param"], error["message"]) == (field, f"{field}: this engine has no plugin for it")


def test_a_form_that_fails_later_is_called_by_that_field_too(server: Any) -> None:
    param = "structured_output.grammar"
    server.engine.failures[2] = (f"{param} cannot be enforced any further", param)
    context = server.app.state.context

    async def work() -> None:
        generation = context.generation("one", ["hi"], SamplingParams(), fields=FieldNames().of_form("guided_grammar"))
        with pytest.raises(RequestError, match=r"^guided_grammar cannot be enforced any further$") as caught:
            await generation.results()
        assert caught.value.param == "guided_grammar"

    run(server, work)


def test_a_failure_before_the_first_token_has_its_status_in_a_stream_too(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(failures={0: EngineDeadError("gone")}))
    response = server.post(COMPLETIONS, STREAM)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize("state", ["starting", "restarting", "dead", "closed"])
def test_nothing_is_served_while_the_engine_is_not_ready(server: Any, state: str) -> None:
    server.engine.status.state = state
    server.engine.status.reason = "it was killed"
    for path, body in ((COMPLETIONS, BODY), ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
        response = server.post(path, body)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert response.json()["error"]["message"] == f"the engine is {state}: it was killed"
    health = server.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == state
    assert health.json()["reason"] == "it was killed"
    assert server.get("/v1/models").status_code == 200


def test_health_names_faults(server: Any) -> None:
    server.engine.status.faults = ("scheduling_policy/mine raised",)
    health = server.get("/health")
    assert health.status_code == 200
    assert health.json() == {
        "status": "ready",
        "reason": None,
        "restarts": 0,
        "faults": ["scheduling_policy/mine raised"],
        "failed_steps": 0,
    }


# Clients that leave


@pytest.mark.parametrize("body", [STREAM, BODY, {"prompt": ["a", "b"], "n": 2, "stream": True}])
def test_a_client_that_leaves_before_the_first_token_ends_its_request(server: Any, body: dict[str, Any]) -> None:
    async def work() -> None:
        server.engine.may_step.clear()
        connection = Connection(server.app, COMPLETIONS, body)
        await until(lambda: bool(server.engine.open_ids))
        connection.leave()
        await connection.task
        assert server.engine.open_ids == []
        assert len(server.engine.aborted) == (2 if isinstance(body["prompt"], list) else 1)

    run(server, work)


def test_a_client_that_leaves_in_mid_stream_ends_its_request(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(script=lambda request: "x" * 200))

    async def work() -> None:
        connection = Connection(server.app, COMPLETIONS, STREAM | {"max_tokens": 200})
        for _ in range(4):
            await connection.sent.get()
        server.engine.may_step.clear()
        connection.leave()
        await connection.task
        assert server.engine.open_ids == []
        assert len(server.engine.aborted) == 1
        assert server.app.state.context.admission.num_requests == 0

    run(server, work)


# Room and time


def test_a_full_queue_says_when_to_come_back(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(overrides={"scheduler.max_num_seqs": 2}), max_queue=1)

    async def work() -> None:
        server.engine.may_step.clear()
        async with server.client() as client:
            first = asyncio.ensure_future(client.post(COMPLETIONS, json=BODY | {"n": 2}))
            await until(lambda: bool(server.engine.open_ids))
            for body in ({"prompt": ["a", "b"]}, {"prompt": ["a", "b"], "stream": True}):
                refused = await client.post(COMPLETIONS, json=body)
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "1"
                assert refused.json()["error"]["code"] == "queue_full"
            last = asyncio.ensure_future(client.post(COMPLETIONS, json=BODY))
            server.engine.may_step.set()
            assert [(await first).status_code, (await last).status_code] == [200, 200]
            assert (await client.post(COMPLETIONS, json={"prompt": ["a", "b"]})).status_code == 200

    run(server, work)


def test_a_request_that_could_never_be_let_in_is_wrong(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(overrides={"scheduler.max_num_seqs": 2}), max_queue=1)
    response = server.post(COMPLETIONS, {"prompt": ["a", "b"], "n": 2})
    assert response.status_code == 400
    assert "at most 3" in response.json()["error"]["message"]


def test_a_request_that_takes_too_long_is_ended(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(), request_timeout_s=0.01)

    async def work() -> None:
        server.engine.may_step.clear()
        async with server.client() as client:
            response = await client.post(COMPLETIONS, json=BODY)
            assert response.status_code == 504
            assert response.json()["error"]["code"] == "request_timeout"
            assert server.engine.open_ids == []

    run(server, work)


def test_a_draining_server_finishes_what_is_open_and_takes_nothing_new(server: Any) -> None:
    async def work() -> None:
        admission = server.app.state.context.admission
        server.engine.may_step.clear()
        async with server.client() as client:
            first = asyncio.ensure_future(client.post(COMPLETIONS, json=BODY))
            await until(lambda: bool(server.engine.open_ids))
            admission.drain()
            refused = await client.post(COMPLETIONS, json=BODY)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert (await client.get("/health")).json()["status"] == "draining"
            server.engine.may_step.set()
            assert (await first).json()["choices"][0]["text"] == "hello there"

    run(server, work)


def test_what_is_left_after_the_drain_ends_with_an_error(server: Any) -> None:
    async def work() -> None:
        admission = server.app.state.context.admission
        connection = Connection(server.app, COMPLETIONS, STREAM)
        async with server.client() as client:
            for _ in range(3):
                await connection.sent.get()
            server.engine.may_step.clear()
            waiting = asyncio.ensure_future(client.post(COMPLETIONS, json=BODY))
            await until(lambda: len(server.engine.open_ids) == 2)
            admission.stop_all(ApiError(503, "the server is shutting down", type="server_error"))
            assert (await waiting).status_code == 503
        await connection.task
        data = b"".join(connection.sent.get_nowait().get("body", b"") for _ in range(connection.sent.qsize()))
        assert data.endswith(b"data: [DONE]\n\n")
        assert b"the server is shutting down" in data
        assert server.engine.open_ids == []

    run(server, work)


def test_a_slow_client_slows_what_is_made_for_it(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(script=lambda request: "x" * 200))

    async def work() -> None:
        stuck = asyncio.Event()
        slow = Connection(server.app, COMPLETIONS, STREAM | {"max_tokens": 200}, send=lambda message: stuck.wait())
        await until(lambda: bool(server.engine.served))
        for _ in range(100):
            await asyncio.sleep(0)
        assert server.engine.num_steps < 20
        slow.leave()
        await slow.task
        assert server.engine.open_ids == []

    run(server, work)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETIONS, BODY, "max_tokens"),
        (CHAT, {"messages": MESSAGES}, "max_tokens"),
        (CHAT, {"messages": MESSAGES, "max_completion_tokens": 9}, "max_completion_tokens"),
        ("/v1/responses", {"input": "hi"}, "max_output_tokens"),
    ],
)
def test_what_the_engine_refuses_has_the_clients_own_name(
    make_server: Any, scripted: Any, path: str, body: dict[str, Any], param: str
) -> None:
    refusal = RequestTooLargeError("it takes 9 blocks; there are 3. Lower max_tokens", param="max_tokens")
    server = make_server(scripted(failures={0: refusal}))
    for stream in (False, True):
        response = server.post(path, body | {"stream": stream})
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (param, "context_length_exceeded")
        assert error["message"].endswith(f"Lower {param}")
