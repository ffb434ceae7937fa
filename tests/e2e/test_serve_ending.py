"""``vcore serve`` as an operator sees it: signals, the death of the engine, keys and TLS. A tiny model will do."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from vcore.testing.server_process import ServerProcess, write_byte_checkpoint

SMALL = ("--set", "runtime.device=cpu", "--set", "runtime.num_threads=1", "--set", "cache.num_blocks=600")
LONG = {"prompt": "hi", "stream": True, "max_tokens": 4000, "ignore_eos": True, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_checkpoint(tmp_path_factory.mktemp("bytes") / "model", max_model_len=8192)


class Stream:
    """A stream that a thread reads; `begun` is set with its first event."""

    def __init__(self, address: str, body: dict[str, Any] = LONG) -> None:
        self.begun = threading.Event()
        self.lines: list[str] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(address, body))
        self._thread.start()
        assert self.begun.wait(60), self.error

    def _read(self, address: str, body: dict[str, Any]) -> None:
        try:
            with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=120) as response:
                for line in response.iter_lines():
                    self.lines += [line.removeprefix("data: ")] if line else []
                    self.begun.set()
        except httpx.HTTPError as error:
            self.error = error

    def join(self) -> list[str]:
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self.lines


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_sigterm_lets_open_requests_finish(folder: Path) -> None:
    with ServerProcess(["-m", str(folder), *SMALL, "--drain", "100"]) as server:
        [engine] = server.children
        stream = Stream(server.address, LONG | {"max_tokens": 400})
        server.signal()
        *_, last, done = stream.join()
        assert json.loads(last)["choices"][0]["finish_reason"] == "length"
        assert done == "[DONE]"
        assert server.wait() == 0
        assert "Traceback" not in server.log
    assert not is_running(engine)


def test_what_is_left_after_the_drain_is_told_so(folder: Path) -> None:
    with ServerProcess(["-m", str(folder), *SMALL, "--drain", "0"]) as server:
        stream = Stream(server.address)
        server.signal()
        *_, last, done = stream.join()
        assert json.loads(last)["error"]["code"] == "shutting_down"
        assert done == "[DONE]"
        assert server.wait() == 0


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    with ServerProcess(["-m", str(folder), *SMALL, "--drain", "1000"]) as server:
        [engine] = server.children
        stream = Stream(server.address)
        server.signal(signal.SIGINT)
        server.signal(signal.SIGTERM)
        server.wait(30)
        assert "[DONE]" not in stream.join()
    assert not is_running(engine)


def test_a_killed_engine_is_an_error_and_comes_back(folder: Path) -> None:
    with ServerProcess(["-m", str(folder), *SMALL]) as server:
        whole = httpx.post(f"{server.address}/v1/completions", json=LONG | {"stream": False, "max_tokens": 8}).json()
        [engine] = server.children
        stream = Stream(server.address)
        os.kill(engine, signal.SIGKILL)
        *_, last, done = stream.join()
        error = json.loads(last)["error"]
        assert error["code"] == "engine_unavailable"
        assert "SIGKILL" in error["message"] or "signal 9" in error["message"]
        assert done == "[DONE]"
        health = httpx.get(f"{server.address}/health")
        assert health.status_code == 503 or health.json()["restarts"] == 1
        while httpx.get(f"{server.address}/health").status_code != 200:
            assert server.get("/health")["status"] in ("restarting", "ready")
        again = httpx.post(f"{server.address}/v1/completions", json=LONG | {"stream": False, "max_tokens": 8}).json()
        assert again["choices"] == whole["choices"]
        assert server.get("/health")["restarts"] == 1
        assert not is_running(engine)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(cert), *subject], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def guarded(folder: Path, certificate: tuple[Path, Path]) -> Iterator[ServerProcess]:
    cert, key = certificate
    arguments = ["--in-process", "--tls-cert", str(cert), "--tls-key", str(key), "--api-key", "${env:SERVE_KEY}"]
    arguments += ["--model-name", "bytes", "--head-timeout", "2"]
    with ServerProcess(["-m", str(folder), *SMALL, *arguments], env={"SERVE_KEY": "hush"}) as server:
        yield server


def test_tls_and_keys_in_one_process(guarded: ServerProcess, certificate: tuple[Path, Path]) -> None:
    assert guarded.address.startswith("https://")
    assert guarded.children == []
    verify = ssl.create_default_context(cafile=str(certificate[0]))
    with httpx.Client(base_url=guarded.address, verify=verify) as client:
        assert client.get("/health").json()["status"] == "ready"
        assert client.get("/v1/models").status_code == 401
        client.headers["Authorization"] = "Bearer hush"
        assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["bytes"]
        answer = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 3, "ignore_eos": True}).json()
        assert answer["usage"]["completion_tokens"] == 3
    assert "hush" not in guarded.log


def test_a_connection_that_does_not_shake_hands_is_closed(guarded: ServerProcess) -> None:
    host, port = guarded.address.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as silent:
        assert silent.recv(1) == b""


def test_an_address_that_is_taken_is_refused_before_the_model_is_loaded(guarded: ServerProcess) -> None:
    port = guarded.address.rpartition(":")[2]
    command = [sys.executable, "-m", "vcore", "serve", "-m", "no-such-model", "--port", port]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"port {port}" in result.stderr
