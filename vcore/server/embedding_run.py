"""`EmbeddingRun`: the inputs of one embeddings request, run by the engine. It knows neither JSON nor HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vcore.engine.prompts import Prompt
from vcore.errors import RequestError
from vcore.outputs import EmbeddingOutput
from vcore.pooling_params import PoolingParams
from vcore.server.errors import ApiError, aborted, took_too_long
from vcore.server.field_names import FieldNames
from vcore.server.observability import note_request

if TYPE_CHECKING:
    from vcore.server.admission import Admission
    from vcore.server.engine_client import EngineClient

__all__ = ["EmbeddingRun"]

_FIELDS = FieldNames((("prompt(?:_token_ids)?", "input"),))


class EmbeddingRun:
    """Runs at most as many inputs at a time as the engine computes: a long list leaves the queue to others."""

    def __init__(
        self,
        engine: EngineClient,
        admission: Admission,
        *,
        request_id: str,
        prompts: Sequence[Prompt],
        params: PoolingParams,
        timeout_s: float | None = None,
    ) -> None:
        """Describe what to run; nothing runs yet.

        Args:
            engine: what runs it.
            admission: asked before anything runs.
            request_id: the engine's requests are named after it.
            prompts: at least one.
            params: for all of them.
            timeout_s: seconds after which it is ended with an error.
        """
        self._request_id = request_id
        self._engine = engine
        self._admission = admission
        self._prompts = prompts
        self._params = params
        self._timeout_s = timeout_s
        self._workers: list[asyncio.Task[None]] = []
        self._error: ApiError | None = None

    def stop(self, error: ApiError) -> None:
        """End it with `error`, and abort what the engine still does for it."""
        self._error = self._error or error
        for worker in self._workers:
            worker.cancel()

    async def results(self) -> list[EmbeddingOutput]:
        """Run to the end; cancelling aborts what is left.

        Returns:
            One output an input, in their order; each has its embedding.

        Raises:
            ApiError: it was not let in, ended by `stop`, took too long, or an input failed.
            RequestError: an input or a parameter is wrong, or the model makes no embeddings.
            EngineDeadError: the engine died.
        """
        num_workers = min(len(self._prompts), self._admission.max_running)
        results: dict[int, EmbeddingOutput] = {}
        with self._admission.admit(num_workers, self.stop):
            inputs = iter(enumerate(self._prompts))
            self._workers = [asyncio.create_task(self._work(inputs, results)) for _ in range(num_workers)]
            try:
                await asyncio.wait(self._workers, timeout=self._timeout_s, return_when=asyncio.FIRST_EXCEPTION)
                self._raise_first()
            finally:
                for worker in self._workers:
                    worker.cancel()
                await asyncio.gather(*self._workers, return_exceptions=True)
        return [results[index] for index in range(len(self._prompts))]

    async def _work(self, inputs: Iterator[tuple[int, Prompt]], results: dict[int, EmbeddingOutput]) -> None:
        """Run one input after another, for as long as there are any."""
        for index, prompt in inputs:
            results[index] = await self._embed(index, prompt)

    async def _embed(self, index: int, prompt: Prompt) -> EmbeddingOutput:
        request_id = self._request_id if len(self._prompts) == 1 else f"{self._request_id}-{index}"
        note_request(request_id, prompt)
        try:
            output = await self._engine.embed(prompt, self._params, request_id=request_id)
        except RequestError as error:
            raise self._about_input(error, index) from error
        if output.finish_reason == "abort":
            raise aborted()
        if output.embedding is None:
            raise ApiError(500, str(output.error), type="server_error", code="embedding_failed")
        return output

    def _about_input(self, error: RequestError, index: int) -> RequestError:
        """`error` in the words of the API, saying which of several inputs it is about."""
        message, param = _FIELDS.reworded(str(error), error.param)
        which = "" if len(self._prompts) == 1 else f"input {index} of {len(self._prompts)} (counted from 0): "
        return type(error)(f"{which}{message}" if param == "input" else message, param=param)

    def _raise_first(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._error is not None:
            raise self._error
        for worker in self._workers:
            if worker.done() and not worker.cancelled() and (error := worker.exception()) is not None:
                raise error
        if not all(worker.done() for worker in self._workers):
            assert self._timeout_s is not None
            raise took_too_long(self._timeout_s)
