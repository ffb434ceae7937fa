"""Who is let in, and with what: keys, bodies, request ids, origins, paths and methods."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

BODY = {"prompt": "hi"}
COMPLETIONS = "/v1/completions"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# Keys


@pytest.fixture
def guarded(make_server: Any) -> Any:
    return make_server(api_keys=("first-key", "second-key"))


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_every_key_opens(guarded: Any, key: str) -> None:
    assert guarded.post(COMPLETIONS, BODY, headers=bearer(key)).status_code == 200
    assert guarded.post(COMPLETIONS, BODY, headers={"authorization": f"bearer {key}"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, bearer(""), bearer("first"), bearer("first-key2"), {"Authorization": "first-key"}, bearer("é")]
)
def test_nothing_else_does(guarded: Any, headers: dict[str, str]) -> None:
    for method, path in (("POST", COMPLETIONS), ("GET", "/v1/models"), ("POST", "/tokenize"), ("GET", "/nothing")):
        response = guarded.request(method, path, headers={k: v.encode() for k, v in headers.items()})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert "first-key" not in response.text


def test_what_probes_read_needs_no_key(guarded: Any) -> None:
    for path in ("/health", "/version", "/metrics", "/openapi.json", "/"):
        assert guarded.get(path).status_code == 200, path


def test_a_body_is_not_read_without_a_key(make_server: Any) -> None:
    server = make_server(api_keys=("k",), max_body_bytes=10)
    assert server.post(COMPLETIONS, {"prompt": "x" * 100}).status_code == 401


# Bodies


@pytest.mark.parametrize("stream", [True, False])
def test_a_body_that_is_too_large_is_refused(make_server: Any, stream: bool) -> None:
    server = make_server(max_body_bytes=100)

    num_read = 0

    async def chunks() -> Any:
        nonlocal num_read
        for _ in range(20):
            yield b" " * 10
            num_read += 1

    content = chunks() if stream else b" " * 101
    response = server.request("POST", COMPLETIONS, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert num_read == (20 if stream else 0), "a client that has not sent all may not see the answer"
    assert server.post(COMPLETIONS, BODY).status_code == 200


def test_a_body_that_waits_to_be_asked_for_is_not(make_server: Any) -> None:
    server = make_server(max_body_bytes=100)

    async def chunks() -> Any:
        pytest.fail("nobody asked")
        yield b""

    headers = {"content-type": "application/json", "content-length": "101", "expect": "100-continue"}
    response = server.request("POST", COMPLETIONS, content=chunks(), headers=headers)
    assert response.status_code == 413


def test_a_body_that_never_ends_is_refused(make_server: Any) -> None:
    server = make_server(body_timeout_s=0.01)

    async def run() -> None:
        async def chunks() -> Any:
            yield b"{"
            await asyncio.Event().wait()

        async with server.client() as client:
            headers = {"content-type": "application/json"}
            response = await client.post(COMPLETIONS, content=chunks(), headers=headers)
            assert response.status_code == 408
            assert response.json()["error"]["code"] == "body_timeout"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no JSON"),
        (b"", "no body"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"prompt": "\xff"}', "not in UTF-8: invalid start byte at byte 12"),
        (b"[]", "the body"),
        (b'"x"', "the body"),
        (b"null", "no body"),
        (b"\xff\xfe", "no JSON"),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b'{"prompt": "a", "temperature": NaN}', "temperature"),
        (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
        (b'{"prompt": "a", "stop": ["\\udc00"]}', "stop"),
    ],
)
def test_what_is_no_request_is_refused(server: Any, content: bytes, message: str) -> None:
    response = server.request("POST", COMPLETIONS, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"], response.text


@pytest.mark.parametrize(
    "form", ['{"prompt": %s}', '{"prompt": "a", "guided_json": %s}', '{"messages": [{"role": "user", "content": %s}]}']
)
def test_what_is_nested_too_deeply_for_what_reads_it_is_wrong_and_no_fault(server: Any, form: str) -> None:
    """Wherever the limit is met: by the parser, or by what comes after it, which stands elsewhere on the stack."""
    path = "/v1/chat/completions" if "messages" in form else COMPLETIONS
    limit = sys.getrecursionlimit()
    for depth in (*range(limit - 120, limit, 2), 2 * limit):
        for opening, closing in ("[]", ('{"a":', "}")):
            content = (form % (opening * depth + "1" + closing * depth)).encode()
            response = server.request("POST", path, content=content, headers={"content-type": "application/json"})
            assert response.status_code == 400, (depth, response.text)


@pytest.mark.parametrize("field", ["stop", "bad_words"])
def test_words_are_bounded_all_together(server: Any, field: str) -> None:
    words = [f"{number:0>1024}" for number in range(64)]
    assert server.post(COMPLETIONS, BODY | {field: words}).status_code == 200
    response = server.post(COMPLETIONS, BODY | {field: [*words, "x"]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == field
    assert error["message"].startswith(f"{field}: has 65537 characters; at most 65536 are taken")


def test_another_content_type_is_refused(server: Any) -> None:
    response = server.request("POST", COMPLETIONS, content=b'{"prompt": "a"}')
    assert response.status_code == 400
    assert "Content-Type" in response.json()["error"]["message"]


# Names, origins, paths


def test_every_answer_has_a_request_id(make_server: Any) -> None:
    server = make_server(api_keys=("k",))
    ids = set()
    for response in (
        server.get("/health"),
        server.post(COMPLETIONS, BODY),
        server.post(COMPLETIONS, BODY, headers=bearer("k")),
        server.post(COMPLETIONS, {}, headers=bearer("k")),
        server.post(COMPLETIONS, BODY | {"stream": True}, headers=bearer("k")),
    ):
        ids.add(response.headers["x-request-id"])
    assert len(ids) == 5
    mine = server.get("/health", headers={"X-Request-Id": "mine-1"})
    assert mine.headers["x-request-id"] == "mine-1"
    for bad in ("x" * 200, "a b", 'a"b'):
        assert server.get("/health", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad


def test_pages_of_other_origins_need_leave(make_server: Any) -> None:
    preflight = {"Origin": "http://page", "Access-Control-Request-Method": "POST"}
    closed = make_server()
    assert "access-control-allow-origin" not in closed.get("/health", headers=preflight).headers
    opened = make_server(cors_origins=("http://page",), api_keys=("k",))
    assert opened.request("OPTIONS", COMPLETIONS, headers=preflight).status_code == 200
    refused = opened.post(COMPLETIONS, BODY, headers={"Origin": "http://page"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "http://page"


def test_unknown_paths_and_methods_have_errors_of_the_same_shape(server: Any) -> None:
    for method, path, status in (("GET", "/v2/x", 404), ("GET", COMPLETIONS, 405), ("DELETE", "/health", 405)):
        response = server.request(method, path)
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert server.get(COMPLETIONS).headers["allow"] == "POST"


def test_what_nobody_foresaw_is_an_error_too(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(server.app.state.context.models, "check", fail)
    response = server.post(COMPLETIONS, BODY)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text
    assert response.headers["x-request-id"]
