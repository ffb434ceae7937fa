"""`RequestPreparer`: has logits processors do a request's slow work, such as compiling a grammar, off the step loop.

    preparer.is_needed(request)           cheap; false for nearly all requests, which enter the core as they are
    request = preparer.prepare(request)   in any thread, before `EngineCore.add_request`

What a processor prepares goes with the request: `EngineRequest.prepared`, `NewRow.prepared`, `ProcessorRow.prepared`.
It is kept for requests to come with the same arguments. Where it is missing, because a request came another way or
a worker lives in another process, the step prepares it itself.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from vcore.engine.request import EngineRequest
from vcore.errors import RequestError, VcoreError
from vcore.interfaces.logits import LogitsProcessor
from vcore.sampling_params import LogitsProcessorRequest

__all__ = ["RequestPreparer"]

logger = logging.getLogger(__name__)

_MAX_KEPT = 128
"""Most preparations that are kept for later requests."""


class RequestPreparer:
    """Prepares requests. May be used from several threads at once; one preparation may then be made twice."""

    def __init__(self, processor: Callable[[str], LogitsProcessor], *, max_kept: int = _MAX_KEPT) -> None:
        """Prepare with the processors that `processor` gives by name."""
        self._processor = processor
        self._max_kept = max_kept
        self._kept: OrderedDict[tuple[str, bytes], object] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def is_needed(request: EngineRequest) -> bool:
        """Whether `prepare` may have something to do for `request`."""
        return bool(request.params.logits_processors)

    def prepare(self, request: EngineRequest) -> EngineRequest:
        """The request with what its logits processors prepared for it. Takes as long as they take.

        Raises:
            RequestError: a processor refuses the request's arguments, or fails; the message names it.
        """
        prepared = {}
        for asked in request.params.logits_processors:
            processor = self._made(asked.name)
            if type(processor).prepare is not LogitsProcessor.prepare:
                prepared[asked.name] = self._prepare(processor, asked)
        return replace(request, prepared=prepared) if prepared else request

    def prepare_all(self, requests: Sequence[EngineRequest]) -> tuple[EngineRequest, ...]:
        """Each of `requests`, such as the samples of one prompt; those that ask for the same share it.

        Raises:
            RequestError: as `prepare`.
        """
        return tuple(self.prepare(request) if self.is_needed(request) else request for request in requests)

    def _made(self, name: str) -> LogitsProcessor:
        try:
            return self._processor(name)
        except VcoreError as error:
            raise RequestError(f"logits processor {name!r}: {error}", param="logits_processors") from error

    def _prepare(self, processor: LogitsProcessor, asked: LogitsProcessorRequest) -> object:
        key = _key(asked)
        if key is not None:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
        try:
            prepared = processor.prepare(asked.options)
        except RequestError:
            raise
        except (Exception, SystemExit) as error:
            logger.exception("logits processor %r failed to prepare a request", asked.name)
            raise RequestError(
                f"logits processor {asked.name!r} cannot prepare this request: {type(error).__name__}: {error}",
                param="logits_processors",
            ) from error
        if key is not None:
            with self._lock:
                self._kept[key] = prepared
                while len(self._kept) > self._max_kept:
                    self._kept.popitem(last=False)
        return prepared


def _key(asked: LogitsProcessorRequest) -> tuple[str, bytes] | None:
    """What equal arguments have in common; None for arguments that are no plain data."""
    try:
        return asked.name, hashlib.sha256(pickle.dumps(asked.options)).digest()
    except Exception:  # pickle raises what it likes
        return None
