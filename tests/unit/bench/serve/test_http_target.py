"""Over HTTP: tokens are counted rightly however they are packed, and every failure has a kind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from fake_openai_server import (
    DONE,
    Answer,
    Asked,
    FakeServer,
    chunk,
    event,
    final_usage,
    refuses,
    streams,
    write_head,
    write_piece,
    writes,
)

from vcore.bench.serve.http_options import Endpoint, HTTPOptions
from vcore.bench.serve.http_target import HTTPTarget
from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.runner import LoadRunner
from vcore.bench.serve.session import loop_factory
from vcore.bench.serve.target import TargetError
from vcore.errors import ConfigError, EngineError

T = TypeVar("T")


def in_loop(main: Coroutine[Any, Any, T]) -> T:
    """In the event loop that the benchmark takes."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def run(
    answer: Answer, *requests: LoadRequest, options: HTTPOptions | None = None
) -> tuple[list[RequestRecord], FakeServer]:
    """The records of requests that are sent one after another."""

    async def main() -> tuple[list[RequestRecord], FakeServer]:
        async with FakeServer(answer).running() as server, HTTPTarget(server.url, options) as target:
            runner = LoadRunner(target, max_concurrency=1, timeout_s=30)
            made = requests or (LoadRequest(token_ids=[1, 2, 3], num_output_tokens=4),)
            return (await runner.run(made, [0.0] * len(made))).records, server

    return in_loop(main())


def one(answer: Answer, *, num_output_tokens: int = 4) -> RequestRecord:
    [record], _ = run(answer, LoadRequest(token_ids=[1], num_output_tokens=num_output_tokens))
    return record


def test_continuous_usage_counts_merged_tokens_and_those_without_text() -> None:
    record = one(
        streams(
            chunk(usage=0),
            chunk("", usage=1),
            chunk("a", usage=3),
            chunk("", usage=3),
            chunk("b", finish="length", usage=4),
            final_usage(4, cached=2),
            DONE,
        )
    )
    assert (record.error, record.message) == (None, None)
    assert record.counts == [1, 2, 1]
    assert record.times == sorted(record.times)
    assert (record.num_output_tokens, record.num_prompt_tokens, record.num_cached_tokens) == (4, 5, 2)
    assert record.finish_reason == "length"
    assert record.usage_stated


def test_without_continuous_usage_chunks_count_and_the_final_usage_holds() -> None:
    record = one(streams(chunk("a"), chunk("bc"), chunk("", finish="stop"), final_usage(3), DONE))
    assert record.error is None
    assert record.counts == [1, 1]
    assert record.num_output_tokens == 3
    assert record.tpot == pytest.approx((record.times[1] - record.times[0]) / 2)


def test_a_server_that_states_no_usage_is_believed_and_noted() -> None:
    record = one(streams(chunk("a"), chunk("b", finish="length"), DONE))
    assert record.error is None
    assert record.num_output_tokens == 2
    assert not record.usage_stated


def test_a_single_piece_with_everything_in_it() -> None:
    record = one(streams(chunk("ab", finish="length", usage=2) + final_usage(2) + DONE))
    assert record.error is None
    assert record.counts == [2]
    assert record.tpot is None
    assert record.gaps == []


def test_usage_on_the_last_chunk_alone_does_not_turn_into_a_late_burst() -> None:
    record = one(streams(chunk("a"), chunk("b"), chunk("c", finish="stop", usage=4), DONE))
    assert record.error is None
    assert record.counts == [1, 1, 1]
    assert record.num_output_tokens == 4


def test_events_may_be_cut_anywhere_and_have_comments_and_crlf() -> None:
    body = b": hello\n\n" + (chunk("a", usage=1) + chunk("b", finish="stop", usage=2)).replace(b"\n", b"\r\n") + DONE
    record = one(streams(*(body[i : i + 1] for i in range(len(body)))))
    assert record.error is None
    assert record.counts == [1, 1]


def test_chat_chunks() -> None:
    def delta(**fields: object) -> bytes:
        return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})

    finish = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    answer = streams(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(content="a"),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
        finish,
        final_usage(3),
        DONE,
    )
    options = HTTPOptions(endpoint=Endpoint.CHAT, api_key="key", extra_body={"top_k": 3, "ignore_eos": None})
    [record], server = run(answer, LoadRequest(text="hi", num_output_tokens=4), options=options)
    assert record.error is None
    assert record.counts == [1, 1, 1]
    [asked] = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer key"
    assert asked.body["messages"] == [{"role": "user", "content": "hi"}]
    assert asked.body["top_k"] == 3
    assert "ignore_eos" not in asked.body
    assert "prompt" not in asked.body


def test_what_is_asked() -> None:
    answer = streams(chunk("a", finish="length", usage=1), DONE)
    requests = (
        LoadRequest(token_ids=[7, 8], num_output_tokens=9, priority=-1),
        LoadRequest(text="words", num_output_tokens=2),
    )
    _, server = run(answer, *requests)
    first, second = (asked.body for asked in server.asked)
    assert first == {
        "model": "tiny",
        "prompt": [7, 8],
        "max_tokens": 9,
        "temperature": 0.6,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "ignore_eos": True,
        "priority": -1,
    }
    assert second["prompt"] == "words"


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (refuses(400, b'{"error": {"message": "prompt too long"}}'), "http_400", "prompt too long"),
        (refuses(503, b"busy"), "http_503", "busy"),
        (refuses(500, b""), "http_500", ""),
        (streams(chunk("a"), event({"error": {"message": "died"}}), DONE), "stream_error", "died"),
        (streams(chunk("a"), event(b"{nonsense")), "malformed", "nonsense"),
        (streams(chunk("a"), event(b"[1]")), "malformed", "chunk"),
        (streams(chunk("a"), b"data: {half"), "cut", "half"),
        (streams(), "cut", "without [DONE]"),
        (streams(chunk("", finish="stop", usage=0), final_usage(0), DONE), "empty", "without a token"),
        (streams(chunk("a"), chunk("", finish="abort"), DONE), "abort", "gave up"),
        (streams(chunk("a", usage=1), chunk("b", finish="stop", usage=2), final_usage(3), DONE), "token_count", "2"),
        (streams(chunk("a"), chunk("b", finish="stop"), final_usage(1), DONE), "token_count", "says 1"),
        (streams(chunk("a", finish="stop"), final_usage(9), DONE), "token_count", "only 4"),
        (writes(b""), "cut", "closed the connection"),
        (writes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + chunk("a")), "cut", "closed the connection"),
        (writes(b"SMTP nonsense\r\n\r\n"), "malformed", "no HTTP"),
    ],
)
def test_failures_have_kinds(answer: Answer, kind: str, message: str) -> None:
    record = one(answer)
    assert record.error == kind
    assert message in str(record.message)
    assert not record.ok


def test_what_came_before_a_failure_is_kept() -> None:
    record = one(streams(chunk("a", usage=1), chunk("b", usage=2), event({"error": {"message": "died"}})))
    assert record.error == "stream_error"
    assert record.counts == [1, 1]


def test_a_stream_that_ends_with_its_connection_is_whole() -> None:
    body = chunk("a", usage=1) + chunk("b", finish="stop", usage=2) + DONE
    record = one(writes(b"HTTP/1.0 200 OK\r\n\r\n" + body))
    assert record.error is None
    assert record.counts == [1, 1]


def test_a_connection_is_used_again_and_replaced_if_it_was_closed() -> None:
    good = streams(chunk("a", finish="stop", usage=1), DONE)
    requests = [LoadRequest(token_ids=[1], num_output_tokens=1) for _ in range(3)]
    records, server = run(good, *requests)
    assert [record.error for record in records] == [None] * 3
    assert server.num_connections == 1

    async def closes_after(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        await good(asked, writer)
        return False  # without having said so

    records, server = run(closes_after, *requests)
    assert [record.error for record in records] == [None] * 3
    assert server.num_connections == 3


def test_a_request_that_takes_too_long_fails_and_its_connection_is_closed() -> None:
    gone = asyncio.Event()

    async def hangs(_: Asked, writer: asyncio.StreamWriter) -> bool:
        write_head(writer)
        write_piece(writer, chunk("a", usage=1))
        await writer.drain()
        try:
            while True:  # until the client has gone
                write_piece(writer, b": still here\n")
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            gone.set()

    async def main() -> RequestRecord:
        async with FakeServer(hangs).running() as server, HTTPTarget(server.url) as target:
            runner = LoadRunner(target, timeout_s=0.3)
            result = await runner.run([LoadRequest(token_ids=[1], num_output_tokens=2)], [0.0])
            await gone.wait()
            return result.records[0]

    record = in_loop(main())
    assert record.error == "timeout"
    assert record.counts == [1]


def test_nobody_listens() -> None:
    async def main() -> str:
        async with FakeServer(streams()).running() as server:
            target = HTTPTarget(server.url)
            await target.__aenter__()
        await target.__aexit__()
        with pytest.raises(TargetError) as caught:
            await target.run(LoadRequest(token_ids=[1], num_output_tokens=1), RequestRecord(due=0.0))
        return caught.value.kind

    assert in_loop(main()) == "connect"


@pytest.mark.parametrize(
    ("models", "options", "error", "message"),
    [
        ({"data": []}, HTTPOptions(), ConfigError, "serves none"),
        ({"data": [{"id": "tiny"}]}, HTTPOptions(model="huge"), ConfigError, "no model 'huge'; it serves tiny"),
        ({"models": 3}, HTTPOptions(), EngineError, "no list of models"),
        ([], HTTPOptions(), EngineError, "no list of models"),
    ],
)
def test_models_are_checked(models: object, options: HTTPOptions, error: type[Exception], message: str) -> None:
    async def main() -> None:
        async with FakeServer(streams(), models).running() as server:
            await HTTPTarget(server.url, options).__aenter__()

    with pytest.raises(error, match=message):
        in_loop(main())


def test_the_servers_limit_is_known_and_v1_may_be_in_the_url() -> None:
    async def main() -> None:
        async with FakeServer(streams()).running() as server, HTTPTarget(server.url + "/v1/") as target:
            assert target.info().model == "tiny"
            assert target.info().max_model_len == 64
            assert target.info().name == server.url

    in_loop(main())


def test_an_unreachable_server_is_named() -> None:
    async def main() -> None:
        async with FakeServer(streams()).running() as server:
            url = server.url
        await HTTPTarget(url).__aenter__()

    with pytest.raises(EngineError, match=r"http://127.0.0.1:\d+ cannot be reached.*is a server running"):
        in_loop(main())


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://x:port", "http://x y", "http://x:99999"]
)
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST"):
        HTTPTarget(url)
