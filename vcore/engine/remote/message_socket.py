"""`MessageSocket`: the ZMQ socket that an engine process connects to, read by the event loop."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Literal

import zmq

from vcore.engine.remote.codec import decode_from_engine, encode
from vcore.engine.remote.messages import FromEngine, ToEngine

__all__ = ["MessageSocket"]

_MAX_PATH = 100
"""Longer paths do not fit a socket's address everywhere."""

_MAX_BURST = 64
"""Messages that are handled before others get their turn in the event loop."""

Transport = Literal["ipc", "tcp"]


class MessageSocket:
    """One end of the line. Only the process that was told its address and key can be at the other."""

    def __init__(self, on_message: Callable[[FromEngine], None], transport: Transport | None = None) -> None:
        """Bind, and read in the running event loop from now on.

        Args:
            on_message: called with each message.
            transport: ``ipc``, a socket file in a folder that only this user may enter, or ``tcp``, a port of the
                loopback device, guarded by a key; None for the first of them that this system has.
        """
        self._on_message = on_message
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._folder: str | None = None
        self.server_key: str | None = None
        """The key to connect with; None if files guard the address."""
        try:
            self.address = self._bind(transport or ("ipc" if zmq.has("ipc") else "tcp"))
        except BaseException:
            self.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._read)
        self._reading = True

    def _bind(self, transport: Transport) -> str:
        """Bind and return the address."""
        if transport == "ipc":
            self._folder = tempfile.mkdtemp(prefix="vcore-")  # nobody but this user may enter it
            if len(self._folder) > _MAX_PATH:
                os.rmdir(self._folder)
                self._folder = tempfile.mkdtemp(prefix="vcore-", dir="/tmp")
            self._socket.bind(f"ipc://{self._folder}/engine")
        else:
            public, self._socket.curve_secretkey = zmq.curve_keypair()
            self._socket.curve_server = True
            self.server_key = public.decode()
            self._socket.bind("tcp://127.0.0.1:*")
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def hide(self) -> None:
        """The other end has connected: remove the socket's file, so that nothing is left whatever happens."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def send(self, message: ToEngine) -> None:
        """Send a message; dropped if nobody is connected."""
        frame = encode(message)
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return
        # Sending may swallow the signal that there is something to read.
        if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        """Read until there is nothing: the file descriptor tells only of what comes after that."""
        for _ in range(_MAX_BURST):
            frame = self._next_frame()
            if frame is None:
                return
            try:
                self._on_message(decode_from_engine(frame))
            except BaseException:
                self._loop.call_soon(self._read)  # others stand behind it
                raise
        self._loop.call_soon(self._read)

    def _next_frame(self) -> bytes | None:
        """A frame that has come; None if there is none, or nobody reads any more."""
        if not self._reading:
            return None
        try:
            return self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def close(self) -> None:
        """Close, and remove the file. Harmless when called twice."""
        if getattr(self, "_reading", False):
            self._reading = False
            self._loop.remove_reader(self._fd)
        if not self._socket.closed:
            self._socket.close(0)
            self._context.term()
        self.hide()
