"""What crosses between the asyncio side and the engine: plain typed data, encoded as MessagePack by `codec`.

Times are seconds on the monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

import json
from array import array
from typing import Any, Literal

from msgspec import Struct

from vcore.engine.input_processor import ProcessedRequest
from vcore.engine.pooling import NO_POOLING, ModelPooling
from vcore.engine.remote.error_message import ErrorMessage
from vcore.engine.request import EngineRequest
from vcore.engine.step_output import StepOutput
from vcore.kv_cache.block_map import BlockMap
from vcore.pooling_params import PoolingMode
from vcore.sampling_params import SamplingParams
from vcore.scheduler.settings import SchedulerStats

__all__ = [
    "AbortRequests",
    "AddRequest",
    "Call",
    "CallName",
    "EngineDied",
    "FinishRequest",
    "FromEngine",
    "HealthChanged",
    "Ready",
    "Refused",
    "Reply",
    "Shutdown",
    "StartFailed",
    "StartOptions",
    "StepDone",
    "ToEngine",
]

_INT32 = next(code for code in "il" if array(code).itemsize == 4)


class StartOptions(Struct, forbid_unknown_fields=True):
    """What an engine process is told on its standard input, as one line of JSON."""

    address: str
    """Of the ZMQ socket to connect to."""
    server_key: str | None
    """The CURVE key of that socket, which only who was told it can talk to; None where files guard it."""
    config: dict[str, Any]
    """The part of `EngineConfig` that was set."""
    base_dir: str
    sys_path: list[str]
    """`sys.path` of the parent, so that both processes find the same modules."""
    parent_pid: int
    log_level: int
    """Of the parent's ``vcore`` logger."""


# To the engine

CallName = Literal["stats", "block_map", "reset_prefix_cache", "start_profile", "stop_profile"]
"""What can be asked of an engine between two steps."""


class AddRequest(Struct, tag="add", array_like=True, frozen=True):
    """A request with all of its samples: what `EngineRequest`s have in common, once."""

    request_ids: tuple[str, ...]
    """Of the engine requests, in the order of their sample indices."""
    prompt: bytes
    """Token ids, int32 in this machine's order of bytes."""
    params: bytes
    """Of sample 0, as JSON: checked by the receiver, so that a request that does not fit harms no other."""
    other_params: bytes | None
    """Of all other samples; None if there are none."""
    max_tokens: int
    arrival_time: float
    eos_token_ids: tuple[int, ...]
    seed: int
    bad_words_token_ids: tuple[tuple[int, ...], ...]
    extra_keys: tuple[str, ...]
    pooling: PoolingMode | None = None

    @classmethod
    def of(cls, processed: ProcessedRequest) -> AddRequest:
        """What crosses of a request.

        Raises:
            ValueError: a parameter is no plain data, such as a text with a lone surrogate.
        """
        first, *others = processed.engine_requests
        return cls(
            request_ids=tuple(request.request_id for request in processed.engine_requests),
            prompt=array(_INT32, first.prompt_token_ids).tobytes(),
            params=_params_json(first.params),
            other_params=_params_json(others[0].params) if others else None,
            max_tokens=first.max_tokens,
            arrival_time=first.arrival_time,
            eos_token_ids=first.eos_token_ids,
            seed=first.seed,
            bad_words_token_ids=first.bad_words_token_ids,
            extra_keys=first.extra_keys,
            pooling=first.pooling,
        )

    def engine_requests(self) -> list[EngineRequest]:
        """The requests as the core takes them; they share one list of prompt tokens.

        Raises:
            RequestError: the parameters are not what `SamplingParams` takes.
        """
        prompt = array(_INT32)
        prompt.frombytes(self.prompt)
        token_ids = prompt.tolist()
        first = _params(self.params)
        other = first if self.other_params is None else _params(self.other_params)
        return [
            EngineRequest(
                request_id=request_id,
                prompt_token_ids=token_ids,
                params=other if index else first,
                max_tokens=self.max_tokens,
                arrival_time=self.arrival_time,
                eos_token_ids=self.eos_token_ids,
                seed=self.seed,
                sample_index=index,
                bad_words_token_ids=self.bad_words_token_ids,
                extra_keys=self.extra_keys,
                pooling=self.pooling,
            )
            for index, request_id in enumerate(self.request_ids)
        ]


class AbortRequests(Struct, tag="abort", array_like=True, frozen=True):
    """End these engine requests, wherever they are."""

    request_ids: tuple[str, ...]


class FinishRequest(Struct, tag="finish", array_like=True, frozen=True):
    """A stop string was found after `num_tokens` tokens."""

    request_id: str
    num_tokens: int
    stop_reason: str | None


class Call(Struct, tag="call", array_like=True, frozen=True):
    """Something to do between two steps; a `Reply` with the same serial number answers it."""

    serial: int
    name: CallName
    folder: str | None = None
    """For ``start_profile``."""


class Shutdown(Struct, tag="shutdown", array_like=True, frozen=True):
    """Free everything and end."""


ToEngine = AddRequest | AbortRequests | FinishRequest | Call | Shutdown


# From the engine


class Ready(Struct, tag="ready", array_like=True, frozen=True):
    """The engine is composed, and takes requests."""

    config: bytes
    """The resolved `EngineConfig`, as JSON, without `server`."""
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    tokenizer_path: str | None
    plugins: dict[str, Any]
    """`ResolvedSet.as_dict`."""
    pooling: ModelPooling = NO_POOLING


class StartFailed(Struct, tag="start_failed", array_like=True, frozen=True):
    """The engine could not be composed; the process ends."""

    error: ErrorMessage


class StepDone(Struct, tag="step", array_like=True, frozen=True):
    """A step with all that came of it."""

    output: StepOutput
    stats: SchedulerStats
    start: float
    end: float


class Refused(Struct, tag="refused", array_like=True, frozen=True):
    """A request that the core does not take in."""

    request_ids: tuple[str, ...]
    """All of its engine requests."""
    num_added: int
    """How many of them, from the first on, had been taken in; their ends are told by a later step."""
    error: ErrorMessage


class Reply(Struct, tag="reply", array_like=True, frozen=True):
    """The answer to a `Call`; what it raised if `error` is set."""

    serial: int
    error: ErrorMessage | None = None
    stats: SchedulerStats | None = None
    block_map: BlockMap | None = None
    done: bool = True
    """Of ``reset_prefix_cache``."""


class HealthChanged(Struct, tag="health", array_like=True, frozen=True):
    """Policies failed, or steps did."""

    faults: tuple[str, ...]
    failed_steps: int


class EngineDied(Struct, tag="died", array_like=True, frozen=True):
    """The engine cannot go on, and why; the process ends."""

    reason: str


FromEngine = Ready | StartFailed | StepDone | Refused | Reply | HealthChanged | EngineDied


def _params_json(params: SamplingParams) -> bytes:
    return params.model_dump_json(exclude_defaults=True).encode()


def _params(data: bytes) -> SamplingParams:
    return SamplingParams(**json.loads(data))
