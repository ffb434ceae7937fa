"""Messages to MessagePack and back. The decoders are typed: bytes that are no message raise, nothing is executed."""

from __future__ import annotations

import msgspec

from vcore.engine.remote.messages import FromEngine, ToEngine

__all__ = ["decode_from_engine", "decode_to_engine", "encode"]

encode = msgspec.msgpack.Encoder().encode
"""The bytes of a message."""

decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
"""The message to the engine that `encode` wrote; `msgspec.DecodeError` for any other bytes."""

decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
"""The message from the engine that `encode` wrote; `msgspec.DecodeError` for any other bytes."""
