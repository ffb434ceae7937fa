"""`FakeHub`: what ``huggingface_hub`` needs of a hub, on this machine, for tests of downloading."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["FakeHub", "serve_hub"]

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REPOSITORY = "maker/small-model"


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
        elif not path.removeprefix("/api/models").startswith(f"/{_REPOSITORY}"):
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        elif path.startswith("/api/"):
            self._answer_api(path.removeprefix(f"/api/models/{_REPOSITORY}"), with_body)
        else:
            self._answer_file(path.removeprefix(f"/{_REPOSITORY}/resolve/").partition("/")[2], with_body)

    def _answer_api(self, rest: str, with_body: bool) -> None:
        revision = re.fullmatch(r"(?:/revision/([^/]+)|/tree/([^/]+))?", rest)
        named = revision and (revision[1] or revision[2])
        if revision is None or named not in (None, "main", _COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
        elif rest.startswith("/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.hub.files.items()
            ]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, with_body)
        else:
            info = {"id": _REPOSITORY, "sha": _COMMIT, "siblings": [{"rfilename": name} for name in self.hub.files]}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, with_body)

    def _answer_file(self, name: str, with_body: bool) -> None:
        data = self.hub.files.get(name)
        if data is None:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": _COMMIT}, with_body)
            return
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": _COMMIT, "Accept-Ranges": "bytes"}
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


@contextlib.contextmanager
def serve_hub(files: Mapping[str, bytes]) -> Iterator[FakeHub]:
    """A hub with one repository, ``maker/small-model``, that holds `files`, while the context lasts.

    Yields:
        Its state, whose `files` and faults may be changed at any time.
    """
    hub = FakeHub(dict(files))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
