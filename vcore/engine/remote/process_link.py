"""`ProcessLink`: the engine in a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from vcore.engine.remote.child_process import ChildProcess
from vcore.engine.remote.environment import engine_environment
from vcore.engine.remote.link import EngineLink
from vcore.engine.remote.message_socket import MessageSocket
from vcore.engine.remote.messages import FromEngine, Shutdown, StartOptions, ToEngine

__all__ = ["ProcessLink"]


class ProcessLink(EngineLink):
    """A child process, and the socket that it connects to."""

    def __init__(
        self,
        config: dict[str, Any],
        base_dir: Path,
        working_dir: Path,
        on_message: Callable[[FromEngine], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """See `EngineLink`.

        Args:
            config: the part of `EngineConfig` that was set, as JSON data.
            base_dir: what relative paths in it are relative to.
            working_dir: of the process.
            on_message: of `EngineLink`.
            on_lost: of `EngineLink`.
        """
        super().__init__(on_message, on_lost)
        self._config = config
        self._base_dir = base_dir
        self._working_dir = working_dir
        self._socket: MessageSocket | None = None
        self._child: ChildProcess | None = None
        self._exited = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def _launch(self) -> None:
        loop = asyncio.get_running_loop()
        self._socket = MessageSocket(self._receive)
        options = StartOptions(
            address=self._socket.address,
            server_key=self._socket.server_key,
            config=self._config,
            base_dir=str(self._base_dir),
            sys_path=sys.path,
            parent_pid=os.getpid(),
            log_level=logging.getLogger("vcore").getEffectiveLevel(),
        )

        def on_exit(cause: str) -> None:
            with suppress(RuntimeError):  # the event loop was closed before the engine ended
                loop.call_soon_threadsafe(self._on_exit, cause)

        command = (sys.executable, "-m", "vcore.engine.remote")
        # In this thread, for Linux ends the child with the thread that started it.
        line, env = msgspec.json.encode(options), engine_environment(os.environ)
        self._child = ChildProcess(command, line, on_exit, cwd=self._working_dir, env=env)

    def _started(self) -> None:
        assert self._socket is not None
        self._socket.hide()

    def _on_exit(self, cause: str) -> None:
        self._exited.set()
        self._lose(cause)

    def send(self, message: ToEngine) -> None:
        if self._socket is not None:
            self._socket.send(message)

    async def stop(self, grace: float) -> None:
        self._over = True
        try:
            if self._child is not None and not self._exited.is_set() and grace > 0:
                self.send(Shutdown())
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._exited.wait(), grace)
        finally:
            if self._child is not None:
                self._child.kill()
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        if self._child is not None:
            await self._exited.wait()
            self._child.close_input()
