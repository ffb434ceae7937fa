"""`SpawnedServer`: a ``vcore serve`` of our own, measured over HTTP and ended afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import Self

from vcore.bench.serve.http_client import HTTPClient
from vcore.bench.serve.http_exchange import ExchangeError
from vcore.bench.serve.http_options import HTTPOptions
from vcore.bench.serve.http_target import HTTPTarget
from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.target import TargetInfo
from vcore.errors import EngineError

__all__ = ["SpawnedServer"]

_HOST = "127.0.0.1"
_POLL_S = 0.1
_STDERR = 2
_STOP_TIMEOUT_S = 30.0


class SpawnedServer:
    """A target that starts its own server on a free port of the loopback interface."""

    def __init__(
        self, arguments: Sequence[str], options: HTTPOptions | None = None, *, start_timeout_s: float = 900.0
    ) -> None:
        """Args:
        arguments: of ``vcore serve``, without host and port.
        options: how requests look.
        start_timeout_s: until it must be healthy.
        """
        self._arguments = list(arguments)
        self._options = options
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._target: HTTPTarget | None = None

    async def __aenter__(self) -> Self:
        """Start it and wait until it is healthy. What it prints goes to stderr.

        Raises:
            EngineError: it ended, or was not healthy in time.
        """
        port = _free_port()
        url = f"http://{_HOST}:{port}"
        command = [sys.executable, "-m", "vcore", "serve", "--host", _HOST, "--port", str(port), *self._arguments]
        self._process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=_STDERR)
        try:
            await self._wait_until_healthy(url, self._process)
            self._target = await HTTPTarget(url, self._options).__aenter__()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it, by force if it does not within 30 s."""
        if self._target is not None:
            await self._target.__aexit__()
        await self._stop()

    def info(self) -> TargetInfo:
        """What the server lists."""
        assert self._target is not None
        return self._target.info()

    async def run(self, request: LoadRequest, record: RequestRecord) -> None:
        """As `HTTPTarget.run`."""
        assert self._target is not None
        await self._target.run(request, record)

    async def _wait_until_healthy(self, url: str, process: asyncio.subprocess.Process) -> None:
        client = HTTPClient(url)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._start_timeout_s
        try:
            while process.returncode is None:
                with contextlib.suppress(ExchangeError):
                    if (await client.get("/health"))[0] == 200:
                        return
                if loop.time() > end:
                    raise EngineError(f"vcore serve was not healthy within {self._start_timeout_s:g} s")
                await asyncio.sleep(_POLL_S)
        finally:
            client.close()
        raise EngineError(f"vcore serve ended with exit status {process.returncode} before it served anything")

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
