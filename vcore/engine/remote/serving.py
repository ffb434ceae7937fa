"""`serve`: composes an engine and runs its loop, in whatever process or thread that is."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vcore.engine.processor_options import ProcessorOptions
from vcore.engine.remote.channel import EngineChannel
from vcore.engine.remote.engine_loop import FAREWELL_S, EngineLoop
from vcore.engine.remote.error_message import ErrorMessage
from vcore.engine.remote.messages import Ready, Shutdown, StartFailed
from vcore.engine.remote.preparation import PrepareCallback
from vcore.engine.request import EngineRequest
from vcore.errors import VcoreError

if TYPE_CHECKING:
    from vcore.engine.build import Engine

__all__ = ["serve"]

logger = logging.getLogger(__name__)


def serve(channel: EngineChannel, build: Callable[[], Engine], *, owns_process: bool) -> bool:
    """Compose an engine, say so or why not, and serve until told to end.

    Args:
        channel: the line to the client.
        build: composes the engine.
        owns_process: whether nothing else lives in this process, so that its garbage collector may be tuned.

    Returns:
        Whether the engine could be composed.
    """
    try:
        engine = build()
        ready = _ready(engine)
    except (Exception, SystemExit) as error:
        if not isinstance(error, VcoreError):
            logger.exception("the engine could not be composed")
        channel.send(StartFailed(ErrorMessage.of(error)))
        _wait_for_shutdown(channel)
        return False
    loop = EngineLoop(engine.core, channel, _preparer(engine))
    if owns_process:
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not walk through it in the middle of a step
    channel.send(ready)
    loop.run()
    return True


def _wait_for_shutdown(channel: EngineChannel) -> None:
    until = time.monotonic() + FAREWELL_S
    while (left := until - time.monotonic()) > 0:
        if any(isinstance(message, Shutdown) for message in channel.receive(left)):
            return


def _ready(engine: Engine) -> Ready:
    return Ready(
        config=engine.config.model_dump_json(exclude={"server"}).encode(),
        vocab_size=engine.vocab_size,
        max_model_len=engine.max_model_len,
        eos_token_ids=engine.eos_token_ids,
        tokenizer_path=None if engine.tokenizer_path is None else str(engine.tokenizer_path.absolute()),
        plugins=engine.plugins.as_dict(),
        pooling=engine.pooling,
    )


def _preparer(engine: Engine) -> PrepareCallback:
    """Reads the options of a request's logits processors by their plugins' models, and has these do their slow work."""
    check = ProcessorOptions(engine.catalog).check

    def prepare(requests: Sequence[EngineRequest]) -> Sequence[EngineRequest]:
        checked = tuple(map(check, requests[0].params.logits_processors))
        update = {"logits_processors": checked}
        return engine.preparer.prepare_all(
            [replace(request, params=request.params.model_copy(update=update)) for request in requests]
        )

    return prepare
