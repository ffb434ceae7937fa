"""The engine's end of the line: `EngineChannel`, through queues in one process, through a ZMQ socket from another."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import zmq

from vcore.engine.remote.codec import decode_to_engine, encode
from vcore.engine.remote.messages import FromEngine, ToEngine

__all__ = ["EngineChannel", "QueueChannel", "SocketChannel"]


class EngineChannel(Protocol):
    """What the engine loop needs. All but `wake` belong to the loop's thread."""

    def receive(self, timeout: float) -> list[ToEngine]:
        """Everything that has come; if nothing has, wait so many seconds, or until `wake`."""
        ...

    def send(self, message: FromEngine) -> None:
        """Send a message. Never waits: what the other side has not read is kept."""
        ...

    def wake(self) -> None:
        """Let a `receive` that waits return, from any thread."""
        ...


class QueueChannel:
    """Within a process: messages as they are."""

    def __init__(self, deliver: Callable[[FromEngine], None]) -> None:
        """Hand the engine's messages to `deliver`, which must be safe to call from the engine's thread."""
        self._deliver = deliver
        self._inbox: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()

    def put(self, message: ToEngine) -> None:
        """Send a message to the engine, from any thread."""
        self._inbox.put(message)

    def receive(self, timeout: float) -> list[ToEngine]:
        messages: list[ToEngine] = []
        try:
            first = self._inbox.get(timeout=timeout) if timeout else self._inbox.get_nowait()
            while True:
                if first is not None:
                    messages.append(first)
                first = self._inbox.get_nowait()
        except queue.Empty:
            return messages

    def send(self, message: FromEngine) -> None:
        self._deliver(message)

    def wake(self) -> None:
        self._inbox.put(None)


class SocketChannel:
    """In a process of its own: one MessagePack frame a message.

    Neither side limits how many messages wait: steps must not wait for a reader that is busy, and what can pile up
    is bounded by the requests that the reader itself has sent.
    """

    def __init__(self, address: str, server_key: str | None) -> None:
        """Connect.

        Args:
            address: of the socket that the other process has bound.
            server_key: its CURVE key, if it has one.
        """
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        if server_key is not None:
            public, secret = zmq.curve_keypair()
            self._socket.curve_serverkey = server_key.encode()
            self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        self._socket.connect(address)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_read, zmq.POLLIN)

    def receive(self, timeout: float) -> list[ToEngine]:
        if timeout:
            ready = dict(self._poller.poll(int(timeout * 1000) + 1))
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
        messages: list[ToEngine] = []
        try:
            while True:
                messages.append(decode_to_engine(self._socket.recv(zmq.NOBLOCK)))
        except zmq.Again:
            return messages

    def send(self, message: FromEngine) -> None:
        self._socket.send(encode(message), zmq.NOBLOCK)

    def wake(self) -> None:
        with suppress(BlockingIOError):  # it is full of calls that were not answered yet
            os.write(self._wake_write, b"\0")

    def close(self, linger_ms: int = 1000) -> None:
        """Send what is left, for at most so long, and close."""
        self._socket.close(linger_ms)
        self._context.term()
        os.close(self._wake_read)
        os.close(self._wake_write)
