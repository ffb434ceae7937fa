"""`Generation`: the prompts of one HTTP request, run by the engine. It knows neither JSON nor HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from vcore.engine.prompts import Prompt
from vcore.errors import RequestError
from vcore.outputs import RequestOutput
from vcore.sampling_params import SamplingParams
from vcore.server.errors import ApiError, aborted, took_too_long
from vcore.server.field_names import FieldNames
from vcore.server.merge import merge
from vcore.server.observability import note_request
from vcore.server.stoppable import Stoppable

if TYPE_CHECKING:
    from vcore.server.admission import Admission
    from vcore.server.engine_client import EngineClient, OutputMode

__all__ = ["Generation"]


class Generation:
    """Runs all prompts of a request at the same time; what comes of them comes in one stream."""

    def __init__(
        self,
        engine: EngineClient,
        admission: Admission,
        *,
        request_id: str,
        prompts: Sequence[Prompt],
        params: SamplingParams,
        timeout_s: float | None = None,
        fields: FieldNames | None = None,
    ) -> None:
        """Describe what to run; nothing runs yet.

        Args:
            engine: what runs it.
            admission: asked before anything runs.
            request_id: of the answer; the engine's requests are named after it.
            prompts: at least one.
            params: for all of them.
            timeout_s: seconds after which it is ended with an error.
            fields: what the client calls the fields that errors name; None: as the engine does.
        """
        self.request_id = request_id
        self.params = params
        self.num_prompts = len(prompts)
        self._engine = engine
        self._admission = admission
        self._prompts = prompts
        self._timeout_s = timeout_s
        self._fields = fields or FieldNames()
        self._running: Stoppable[tuple[int, RequestOutput]] | None = None

    def stop(self, error: ApiError) -> None:
        """End it with `error`, and abort what the engine still does for it, though the client may not read."""
        if self._running is not None:
            self._running.stop(error)

    async def outputs(self, mode: OutputMode) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        """Run. Closing the generator aborts what is left.

        Yields:
            The index of a prompt and an output of the engine.

        Raises:
            ApiError: it was not let in, ended by `stop`, took too long, or a sample failed.
            RequestError: a prompt or the parameters are wrong, or the form became too complex for the text.
            EngineDeadError: the engine died.
        """
        num_samples = len(self._prompts) * self.params.n
        with self._fields.applied(), self._admission.admit(num_samples, self.stop):
            running = self._running = Stoppable(merge([self._generate(*one, mode) for one in enumerate(self._prompts)]))
            loop = asyncio.get_running_loop()
            timer = None if self._timeout_s is None else loop.call_later(self._timeout_s, self._time_out)
            try:
                while (item := await running.next()) is not None:
                    _check(item[1])
                    yield item
            finally:
                if timer is not None:
                    timer.cancel()
                await running.close()

    async def results(self) -> list[RequestOutput]:
        """Run to the end; one output a prompt, in their order. Raises as `outputs`."""
        results: list[RequestOutput | None] = [None] * self.num_prompts
        async with aclosing(self.outputs("final")) as outputs:
            async for index, output in outputs:
                results[index] = output
        found = [output for output in results if output is not None]
        if len(found) < len(results):
            raise ApiError(500, "the engine ended a request without an answer", type="server_error")
        return found

    def _generate(self, index: int, prompt: Prompt, mode: OutputMode) -> AsyncGenerator[RequestOutput, None]:
        request_id = self.request_id if len(self._prompts) == 1 else f"{self.request_id}-{index}"
        note_request(request_id, prompt)
        return self._engine.generate(prompt, self.params, request_id=request_id, mode=mode)

    def _time_out(self) -> None:
        assert self._timeout_s is not None
        self.stop(took_too_long(self._timeout_s))


def _check(output: RequestOutput) -> None:
    """Refuse a sample that has no end a client could know; what the client asked for may be why."""
    for sample in output.outputs:
        if sample.finish_reason == "error" and sample.error_param is not None:
            raise RequestError(str(sample.stop_reason), param=sample.error_param or None)
        if sample.finish_reason == "error":
            raise ApiError(500, str(sample.stop_reason), type="server_error", code="generation_failed")
        if sample.finish_reason == "abort":
            raise aborted()
