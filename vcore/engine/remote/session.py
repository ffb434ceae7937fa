"""`EngineSession`: what an `AsyncLLM` is made of: the supervised engine, its facts, open requests, calls, listeners."""

from __future__ import annotations

from vcore.engine.input_processor import InputProcessor, ProcessedRequest
from vcore.engine.records import EngineStatus, StepRecord
from vcore.engine.remote.calls import Calls
from vcore.engine.remote.composition import Composition, EngineFacts
from vcore.engine.remote.listeners import Listeners
from vcore.engine.remote.messages import CallName, FromEngine, Ready, Refused, Reply, StepDone
from vcore.engine.remote.open_requests import OpenRequests
from vcore.engine.remote.profile import Profile
from vcore.engine.remote.restarts import RestartPolicy
from vcore.engine.remote.supervisor import Supervisor
from vcore.errors import EngineDeadError
from vcore.plugins.catalog import Catalog
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams
from vcore.scheduler.settings import SchedulerStats

__all__ = ["EngineSession"]


class EngineSession:
    """Hands what the engine says to whom it concerns. Belongs to the thread of the event loop."""

    def __init__(self, composition: Composition, policy: RestartPolicy) -> None:
        """Start nothing yet."""
        self._composition = composition
        self._catalog: Catalog | None = None
        self._facts: EngineFacts | None = None
        self._requests: OpenRequests | None = None
        self.listeners = Listeners()
        self.supervisor = Supervisor(composition.make_link, policy, self)
        self.calls = Calls(self.supervisor.send)
        self.last_stats: SchedulerStats | None = None
        """Came with the last step; None before the first one of this engine."""
        self.profile = Profile(self.ask)
        self._input_processor: InputProcessor | None = None

    @property
    def facts(self) -> EngineFacts:
        """What is known of the engine since it was ready for the first time; still there when it has died.

        Raises:
            EngineDeadError: it was never ready.
        """
        if self._facts is None:
            self.supervisor.require_ready()
            raise EngineDeadError("the engine has not said yet what it is")
        return self._facts

    @property
    def requests(self) -> OpenRequests:
        """The requests of the engine that runs.

        Raises:
            EngineDeadError: none does.
        """
        self.supervisor.require_ready()
        assert self._requests is not None
        return self._requests

    @property
    def num_unfinished(self) -> int:
        """How many requests are open."""
        return 0 if self._requests is None else len(self._requests)

    def process(self, prompt: object, params: SamplingParams | PoolingParams, *, request_id: str) -> ProcessedRequest:
        """Check and tokenise a prompt, in any thread; see `InputProcessor.process` and `process_embedding`."""
        assert self._input_processor is not None
        if isinstance(params, PoolingParams):
            return self._input_processor.process_embedding(prompt, params, request_id=request_id)
        return self._input_processor.process(prompt, params, request_id=request_id)

    def abort(self, request_id: str) -> None:
        """End a request; see `OpenRequests.abort`."""
        if self._requests is not None:
            self._requests.abort(request_id)

    async def ask(self, name: CallName, folder: str | None = None) -> Reply:
        """Ask the engine something; see `Calls.ask`.

        Raises:
            EngineDeadError: it is not ready, or dies meanwhile.
        """
        self.supervisor.require_ready()
        return await self.calls.ask(name, folder)

    # What the supervisor and the engine say

    async def on_ready(self, ready: Ready) -> None:
        """An engine was composed: what is to be known of it."""
        if self._catalog is None:
            self._catalog = await self._composition.discover()
        facts = await self._composition.facts(ready, self._catalog)
        self._input_processor = facts.input_processor()
        self._requests = OpenRequests(facts.tokenizer, self.supervisor.send, self.listeners.on_finished)
        self._facts, self.last_stats = facts, None

    def on_message(self, message: FromEngine) -> None:
        """The engine says something."""
        match message:
            case StepDone():
                self._take_step(message)
            case Refused():
                assert self._requests is not None
                self._requests.refuse(message)
            case Reply():
                self.calls.take(message)

    def on_dead(self, reason: str) -> None:
        """The engine is gone, with all that was asked of it."""
        if self._requests is not None:
            self._requests.fail_all(reason)
        self.calls.fail_all(reason)
        self.profile.forget()

    def on_status(self, status: EngineStatus) -> None:
        """The engine's state has changed."""
        self.listeners.on_engine(status)

    def _take_step(self, done: StepDone) -> None:
        assert self._requests is not None
        self.last_stats = done.stats
        latencies = self._requests.take_in(done.output)
        if self.listeners:
            output = done.output
            self.listeners.on_step(
                StepRecord(
                    index=output.step_id,
                    start=done.start,
                    end=done.end,
                    num_prompt_tokens=output.num_prompt_tokens,
                    num_decodes=output.num_decodes,
                    num_requests=output.num_requests,
                    num_output_tokens=len(output.token_ids),
                    first_token_latencies=latencies.first_token,
                    inter_token_latencies=latencies.inter_token,
                    stats=done.stats,
                )
            )
