"""`RequestMaker`: the engine's request of one in a trace, without tokens."""

from __future__ import annotations

from vcore.engine.request import EngineRequest
from vcore.sampling_params import MAX_SECONDS, SamplingParams
from vcore.scheduler import SchedulerSettings
from vcore.simulate.block_names import BlockNames
from vcore.simulate.scheduler import END
from vcore.simulate.settings import FleetOptions
from vcore.simulate.virtual_prompt import VirtualPrompt
from vcore.traces import Trace, TraceRequest

__all__ = ["RequestMaker"]


class RequestMaker:
    """Requests end when the trace says, but what policies see as `max_tokens` is the same bound for all.

    It is the longest output of the trace, or what the cache and the model's length leave: a policy that took the bound
    for the length would otherwise know what no server does.
    """

    def __init__(self, trace: Trace, settings: SchedulerSettings, names: BlockNames, options: FleetOptions) -> None:
        """Args:
        trace: whose requests are made.
        settings: how long a request may be.
        names: hashes of prompts.
        options: what requests say of themselves.
        """
        self._names = names
        self._options = options
        self._most_output = max(one.output_length for one in trace.requests)
        self._most = min(settings.max_model_len, (settings.num_blocks - 1) * settings.block_size + 1)
        self._params: dict[tuple[int, str | None, float | None, int | None], SamplingParams] = {}

    def __call__(self, index: int, one: TraceRequest) -> EngineRequest:
        """The request at `index`, which becomes its id."""
        bound = min(self._most_output, self._most - one.input_length)
        return EngineRequest(
            request_id=str(index),
            prompt_token_ids=VirtualPrompt(one.input_length, self._names.of(one), one.input_length + one.output_length),
            params=self._params_of(one),
            max_tokens=max(bound, one.output_length),
            arrival_time=one.arrival_s,
            eos_token_ids=(END,),
        )

    def _params_of(self, one: TraceRequest) -> SamplingParams:
        expected = one.output_length if self._options.known_lengths else None
        key = (one.priority, one.tenant, one.cache_ttl, expected)
        params = self._params.get(key)
        if params is None:
            slo = self._options.slo
            params = self._params[key] = SamplingParams(
                temperature=0.0,
                detokenize=False,
                priority=one.priority,
                tenant=one.tenant,
                cache_ttl=one.cache_ttl,
                expected_tokens=expected,
                ttft_target_s=None if slo is None else _target(slo.ttft),
                itl_target_s=None if slo is None else _target(slo.itl),
            )
        return params


def _target(seconds: float | None) -> float | None:
    """A bound of the SLO as a request may state it; who is bound by more is as good as not bound."""
    return None if seconds is None else min(seconds, MAX_SECONDS)
