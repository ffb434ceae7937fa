"""``python -m vcore.engine.remote``: the engine process. It is started by `ProcessLink`, never by hand."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vcore.engine.remote.channel import SocketChannel
from vcore.engine.remote.messages import StartOptions
from vcore.engine.remote.parent_watch import end_with_parent
from vcore.engine.remote.serving import serve

if TYPE_CHECKING:
    from vcore.engine.build import Engine


def main() -> int:
    """Read the options, compose the engine and serve; the exit status."""
    # Unbuffered, so that nothing is read beyond the line: the rest belongs to who waits for the end.
    line = bytearray()
    while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
        line += byte
    options = msgspec.json.decode(bytes(line), type=StartOptions)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then tells us
    end_with_parent(options.parent_pid)
    faulthandler.enable()  # so that the log says where a crash happened
    sys.path[:] = options.sys_path
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s engine: %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("vcore").setLevel(options.log_level)
    channel = SocketChannel(options.address, options.server_key)
    try:
        return 0 if serve(channel, lambda: _build(options), owns_process=True) else 1
    finally:
        channel.close()


def _build(options: StartOptions) -> Engine:
    from vcore.config import EngineConfig
    from vcore.engine.build import build_engine

    config = EngineConfig.model_validate(options.config)
    return build_engine(config, base_dir=Path(options.base_dir))


if __name__ == "__main__":
    sys.exit(main())
