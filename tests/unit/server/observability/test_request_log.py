"""Request logs: what is in them, and above all what is not."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import threading
from typing import Any

import pytest

from vcore.engine.records import EngineStatus
from vcore.server.observability import json_log
from vcore.server.observability.json_log import JsonLog
from vcore.server.observability.request_notes import RequestNote, RequestNotes

SECRET = "the password is swordfish"


@pytest.fixture
def logged(make_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server with settings, and what reads its log once it is closed."""

    def make(**settings: Any) -> tuple[Any, Any]:
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        server = make_server(log_requests=True, **settings)

        def lines() -> list[dict[str, Any]]:
            server.app.state.observability.close()
            return [json.loads(line) for line in stream.getvalue().splitlines()]

        return server, lines

    return make


def finish(server: Any, record: Any) -> None:
    for listener in server.engine.listeners:
        listener.on_finished(record)


def test_a_request_is_one_line_without_its_text(logged: Any, make_request: Any) -> None:
    server, lines = logged()
    server.post("/v1/completions", {"prompt": SECRET, "stop": "swordfish", "max_tokens": 3})
    finish(server, make_request("cmpl-1"))
    [request] = [line for line in lines() if line["event"] == "request"]
    assert request["request_id"] == "cmpl-1"
    assert request["finish_reasons"] == ["stop"]
    assert (request["queue_s"], request["ttft_s"], request["mean_itl_s"], request["e2e_s"]) == (1.0, 3.0, 2.0, 7.0)
    assert (request["num_prompt_tokens"], request["num_cached_tokens"], request["num_output_tokens"]) == (12, 4, 3)
    assert request["params"]["temperature"] == 0.5
    assert "secret stop" not in json.dumps(request)


def test_no_line_has_text_of_a_user(logged: Any, make_request: Any) -> None:
    server, lines = logged()
    chat = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 3}
    server.post("/v1/chat/completions", chat)
    server.post("/v1/completions", {"prompt": SECRET, "temperature": "swordfish"})
    server.get("/swordfish")
    finish(server, make_request(server.engine.served[0].request_id))
    found = lines()
    assert {line["event"] for line in found} == {"http", "request"}
    assert "swordfish" not in json.dumps(found)


def test_a_line_names_its_route_and_the_answer_s_id(logged: Any, make_request: Any) -> None:
    server, lines = logged()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"X-Request-Id": "mine", "traceparent": parent}
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    engine_id = server.post("/v1/chat/completions", body, headers=headers).json()["id"]
    finish(server, make_request(engine_id))
    by_event = {line["event"]: line for line in lines()}
    assert by_event["request"]["path"] == "/v1/chat/completions"
    assert by_event["request"]["http_request_id"] == "mine"
    assert by_event["request"]["traceparent"] == parent
    assert by_event["http"]["request_id"] == "mine"
    assert (by_event["http"]["status"], by_event["http"]["method"]) == (200, "POST")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": SECRET}),
        ("/v1/completions", {"prompt": list(SECRET.encode())}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": SECRET}]}),
    ],
    ids=["text", "token ids", "chat"],
)
def test_prompts_are_logged_if_asked_for(logged: Any, make_request: Any, path: str, body: dict[str, Any]) -> None:
    server, lines = logged(log_prompts=True)
    engine_id = server.post(path, body | {"max_tokens": 3}).json()["id"]
    finish(server, make_request(engine_id))
    [request] = [line for line in lines() if line["event"] == "request"]
    assert SECRET in request["prompt"]


def test_what_machines_ask_every_second_is_logged_only_if_it_fails(logged: Any) -> None:
    server, lines = logged()
    for path in ("/metrics", "/health", "/ui/state"):
        server.get(path)
    server.get("/ui/static/nothing.js")
    assert [(line["path"], line["status"]) for line in lines()] == [("/ui/static/{name}", 404)]


def test_the_engine_s_states_are_logged(logged: Any) -> None:
    server, lines = logged()
    for listener in server.engine.listeners:
        listener.on_engine(EngineStatus(state="restarting", reason="killed by signal 9", restarts=1))
    [line] = lines()
    assert (line["event"], line["state"], line["reason"], line["restarts"]) == (
        "engine",
        "restarting",
        "killed by signal 9",
        1,
    )
    assert line["time"].endswith("Z")


def test_nothing_is_noted_where_nobody_reads_it(server: Any) -> None:
    server.post("/v1/completions", {"prompt": "hi", "max_tokens": 2})
    assert server.app.state.observability.wanted_notes is None


def test_a_note_goes_with_its_request(logged: Any, make_request: Any) -> None:
    server, lines = logged()
    engine_id = server.post("/v1/completions", {"prompt": "hi", "max_tokens": 2}).json()["id"]
    notes = server.app.state.observability.wanted_notes
    assert notes.get(engine_id) is not None
    finish(server, make_request(engine_id))
    assert len(notes) == 0
    lines()


def test_a_note_on_what_the_engine_refused_goes_after_a_while(logged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcore.server.observability.request_notes._LINGER_S", 0.0)
    server, lines = logged()
    notes = server.app.state.observability.wanted_notes

    async def refuse() -> None:
        async with server.client() as client:
            answer = await client.post("/v1/completions", json={"prompt": "x" * 1000})
            assert answer.status_code == 400
            assert len(notes) <= 1
            while len(notes):
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(refuse(), 30))
    lines()


def test_there_are_never_more_notes_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcore.server.observability.request_notes.MAX_NOTES", 3)
    notes = RequestNotes()
    for index in range(5):
        notes.add(str(index), RequestNote("/"))
    assert len(notes) == 3
    assert notes.get("1") is None
    assert notes.get("4") is not None


class BlockedStream(io.StringIO):
    """Takes nothing before `free` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.entered = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.free.wait()
        return super().write(text)


def test_a_reader_that_is_too_slow_costs_lines_and_never_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_log, "_QUEUE", 2)
    stream = BlockedStream()
    log = JsonLog(stream)
    log.write("first", {})
    stream.entered.wait()
    for number in range(5):
        log.write("more", {"number": number})
    stream.free.set()
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("number") for line in lines] == [None, 0, 1]


def test_the_next_line_says_how_many_were_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_log, "_QUEUE", 1)
    stream = BlockedStream()
    log = JsonLog(stream)
    log.write("first", {})
    stream.entered.wait()
    for _ in range(3):
        log.write("more", {})
    stream.free.set()
    while log._lines.qsize():
        pass
    log.write("last", {})
    log.close()
    assert json.loads(stream.getvalue().splitlines()[-1])["dropped_lines"] == 2


class FullDisk(io.StringIO):
    """Has no room at first."""

    def __init__(self, num_failures: int) -> None:
        super().__init__()
        self._num_failures = num_failures

    def write(self, text: str) -> int:
        if self._num_failures:
            self._num_failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_the_log_goes_on_when_a_full_disk_has_room_again() -> None:
    stream = FullDisk(num_failures=3)
    log = JsonLog(stream)
    for number in range(5):
        log.write("line", {"number": number})
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["number"], line.get("dropped_lines")) for line in lines] == [(3, 3), (4, None)]


def test_a_reader_that_never_reads_does_not_keep_the_server_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_log, "_QUEUE", 1)
    monkeypatch.setattr(json_log, "_PATIENCE_S", 0.0)
    stream = BlockedStream()
    log = JsonLog(stream)
    log.write("first", {})
    stream.entered.wait()
    log.write("second", {})
    log.close()
    stream.free.set()


def test_a_reader_that_is_gone_and_closing_twice_do_no_harm() -> None:
    stream = io.StringIO()
    stream.close()
    log = JsonLog(stream)
    log.write("first", {})
    log._thread.join()
    log.write("second", {})
    log.close()
    log.close()
