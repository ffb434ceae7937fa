"""`Generation`: the prompts of one HTTP request, run by the engine. It knows neither JSON nor HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from vcore.engine.prompts import Prompt
from vcore.outputs import RequestOutput
from vcore.sampling_params import SamplingParams
from vcore.server.errors import ApiError, took_too_long
from vcore.server.mailbox import Mailbox
from vcore.server.observability import note_request

if TYPE_CHECKING:
    from vcore.server.admission import Admission
    from vcore.server.engine_client import EngineClient, OutputMode

__all__ = ["Generation"]

_ROOM = 2
"""Outputs that wait for a slow client here; behind them the engine joins what comes."""


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
    ) -> None:
        """Describe what to run; nothing runs yet.

        Args:
            engine: what runs it.
            admission: asked before anything runs.
            request_id: of the answer; the engine's requests are named after it.
            prompts: at least one.
            params: for all of them.
            timeout_s: seconds after which it is ended with an error.
        """
        self.request_id = request_id
        self.params = params
        self.num_prompts = len(prompts)
        self._engine = engine
        self._admission = admission
        self._prompts = prompts
        self._timeout_s = timeout_s
        self._pumps: list[asyncio.Task[None]] = []
        self._mailbox: Mailbox[tuple[int, RequestOutput | None]] = Mailbox(_ROOM)

    def stop(self, error: ApiError) -> None:
        """End it with `error`, and abort what the engine still does for it, though the client may not read."""
        self._mailbox.fail(error)
        for pump in self._pumps:
            pump.cancel()

    async def outputs(self, mode: OutputMode) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        """Run. Closing the generator aborts what is left.

        Yields:
            The index of a prompt and an output of the engine.

        Raises:
            ApiError: it was not let in, ended by `stop`, took too long, or a sample failed.
            RequestError: a prompt or the parameters are wrong.
            EngineDeadError: the engine died.
        """
        with self._admission.admit(len(self._prompts) * self.params.n, self.stop):
            self._pumps = [asyncio.create_task(self._pump(*item, mode)) for item in enumerate(self._prompts)]
            loop = asyncio.get_running_loop()
            timer = None if self._timeout_s is None else loop.call_later(self._timeout_s, self._time_out)
            try:
                num_open = len(self._pumps)
                while num_open:
                    index, output = await self._mailbox.get()
                    if output is None:
                        num_open -= 1
                        continue
                    _check(output)
                    yield index, output
            finally:
                if timer is not None:
                    timer.cancel()
                for pump in self._pumps:
                    pump.cancel()
                await asyncio.gather(*self._pumps, return_exceptions=True)

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

    async def _pump(self, index: int, prompt: Prompt, mode: OutputMode) -> None:
        request_id = self.request_id if len(self._prompts) == 1 else f"{self.request_id}-{index}"
        try:
            note_request(request_id, prompt)
            generated = self._engine.generate(prompt, self.params, request_id=request_id, mode=mode)
            async with aclosing(generated) as outputs:
                async for output in outputs:
                    await self._mailbox.put((index, output))
            await self._mailbox.put((index, None))
        except Exception as error:
            self._mailbox.fail(error)

    def _time_out(self) -> None:
        assert self._timeout_s is not None
        self.stop(took_too_long(self._timeout_s))


def _check(output: RequestOutput) -> None:
    """Refuse a sample that has no end a client could know."""
    for sample in output.outputs:
        if sample.finish_reason == "error":
            raise ApiError(500, str(sample.stop_reason), type="server_error", code="generation_failed")
        if sample.finish_reason == "abort":
            raise ApiError(503, "the request was aborted", type="server_error", code="aborted", retry_after=1)
