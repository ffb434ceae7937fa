"""``vcore trace`` against a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from vcore.cli.main import run

TRACE = {
    "traceEvents": [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "engine"}},
        {"ph": "X", "name": "decode", "pid": 1, "tid": 1, "ts": 0, "dur": 1, "args": {"index": 1}},
        {"ph": "X", "name": "request", "pid": 2, "tid": 1, "ts": 0, "dur": 1, "args": {}},
        {"ph": "X", "name": "queued", "pid": 2, "tid": 1, "ts": 0, "dur": 1, "args": {}},
    ]
}


class Server(HTTPServer):
    """Answers with `status` and `body`, and remembers what it was asked."""

    status = 200
    body = json.dumps(TRACE)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, float, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        seconds = float(parse_qs(parts.query)["seconds"][0])
        self.server.asked.append((parts.path, seconds, self.headers.get("Authorization")))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_the_trace_is_written(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "t.json"
    assert run(["trace", "--url", f"{server.url}/", "--seconds", "30", "--output", str(output), "--json"]) == 0
    assert json.loads(output.read_text()) == TRACE
    printed = json.loads(capfd.readouterr().out)
    assert printed == {"path": str(output), "num_events": 4, "num_steps": 1, "num_requests": 1}
    assert server.asked == [("/trace", 30.0, None)]


def test_a_key_is_sent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["trace", "--url", server.url, "--output", str(tmp_path / "t.json")]
    assert run([*line, "--api-key", "mine"]) == 0
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    assert run(line) == 0
    assert [key for _, _, key in server.asked] == ["Bearer mine", "Bearer from the environment"]


def test_waiting_asks_first_so_that_mistakes_cost_no_wait(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    slept = []
    monkeypatch.setattr("vcore.cli.trace.time.sleep", slept.append)
    line = ["trace", "--url", server.url, "--wait", "--seconds", "7", "--output", str(tmp_path / "t.json")]
    assert run(line) == 0
    assert slept == [7.0]
    assert [seconds for _, seconds, _ in server.asked] == [0.001, 7.0]
    assert "1 steps, 1 requests" in capfd.readouterr().out
    server.status, server.body = 403, json.dumps({"error": {"message": "start it with --enable-trace"}})
    assert run(line) == 1
    assert slept == [7.0]
    assert "403: start it with --enable-trace" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, "<html>", "is it a vcore server"),
        (200, "[]", "not with a trace"),
        (500, "oops", "answers 500"),
    ],
)
def test_what_is_no_trace_is_refused(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], status: int, body: str, message: str
) -> None:
    server.status, server.body = status, body
    output = tmp_path / "t.json"
    assert run(["trace", "--url", server.url, "--output", str(output)]) == 1
    assert message in capfd.readouterr().err
    assert not output.exists()


def test_no_server_and_no_address(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "--url", "http://127.0.0.1:1", "--output", str(tmp_path / "t.json")]) == 1
    assert "is it running?" in capfd.readouterr().err
    assert run(["trace", "--url", "localhost:8000"]) == 2
    assert "http://127.0.0.1:8000" in capfd.readouterr().err
