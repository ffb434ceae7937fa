"""`ServerProcess`: ``vcore serve`` in a process of its own, for tests of clients."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError
from urllib.request import urlopen

if TYPE_CHECKING:
    import http.client

__all__ = ["ServerProcess", "write_byte_checkpoint"]

_READY = re.compile(r"^serving .* at (https?://[^\s;]+);")


class ServerProcess:
    """A server that listens on a free port, from when it is made until it is closed.

    What it writes goes into a file, so that no pipe can fill up; `log` reads it.
    """

    def __init__(
        self, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 120.0
    ) -> None:
        """Start it, and wait until it answers.

        Args:
            arguments: of ``vcore serve``, without ``--port``.
            env: variables beside those of this process.
            timeout_s: how long to wait.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message has its log.
        """
        self._log = tempfile.NamedTemporaryFile(mode="w+", prefix="vcore-serve-", suffix=".log")  # noqa: SIM115
        self._ready = threading.Event()
        self.address = ""
        """Such as ``http://127.0.0.1:8000``."""
        command = [sys.executable, "-m", "vcore", "serve", "--port", "0", *arguments]
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._ready.wait(timeout_s)
        if not self.address:
            self.kill()
            raise RuntimeError(f"{' '.join(command)} did not come up:\n{self.log}")

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.write(line)
            self._log.flush()
            if (found := _READY.search(line)) is not None:
                self.address = found[1]
                self._ready.set()
        self._ready.set()

    @property
    def pid(self) -> int:
        """Of the process that speaks HTTP."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    @property
    def children(self) -> list[int]:
        """The processes that it started, on Linux."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            found += [int(pid) for pid in task.read_text().split()]
        return found

    def get(self, path: str) -> Any:
        """The JSON that a path answers, whatever the status."""
        try:
            response: http.client.HTTPResponse | HTTPError = urlopen(self.address + path, timeout=30)
        except HTTPError as error:
            response = error
        with response:
            return json.loads(response.read())

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the process that speaks HTTP."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Its exit status, once it has ended."""
        status = self._process.wait(timeout_s)
        self._reader.join(timeout_s)
        return status

    def kill(self) -> None:
        """End it, whatever it does. Harmless when it has ended."""
        self._process.kill()
        self.wait()

    def close(self) -> None:
        """End it as an operator would, at once."""
        if self._process.poll() is None:
            self.signal(signal.SIGINT)
            self.signal(signal.SIGTERM)  # two of one kind may arrive as one
            try:
                self.wait(20.0)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_byte_checkpoint(folder: Path, *, max_model_len: int = 4096, seed: int = 0) -> Path:
    """A tiny random model of the Llama architecture whose tokens are bytes, with tokenizer and chat template.

    Returns:
        `folder`, which is made if it is not there. The model loads in no time and answers nonsense.
    """
    from transformers import LlamaConfig

    from vcore.testing.scripted_engine import EOS, byte_tokenizer
    from vcore.testing.tiny_checkpoint import TinyCheckpoint

    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_model_len,
        eos_token_id=EOS,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    TinyCheckpoint(config, folder, seed=seed)
    tokenizer = byte_tokenizer()
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    described = {"eos_token": "<eos>", "chat_template": tokenizer.chat_templates["default"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return folder
