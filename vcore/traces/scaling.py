"""A trace made to fit: other lengths, another pace, no request longer than a model can serve."""

from __future__ import annotations

import math
from dataclasses import replace

from vcore.errors import ConfigError
from vcore.traces.trace import Trace, TraceRequest

__all__ = ["cut_lengths", "scale_lengths", "scale_times"]

_MOST_TOKENS = 1e15
"""Of a scaled request: any more is a slip, and numbers lose their last digits there."""


def scale_times(trace: Trace, rate: float) -> Trace:
    """The same trace, so much faster or slower that `rate` requests arrive a second on average (infinite: all at once).

    Raises:
        ConfigError: all of its requests arrive at once, or `rate` is not above 0, or so small that times overflow.
    """
    if trace.rate is None:
        raise ConfigError(f"{trace.name}: all requests arrive at once, so there is no pace that could be changed")
    if not rate > 0:
        raise ConfigError(f"{trace.name}: found {rate:g} requests a second, expected a number above 0")
    factor = trace.rate / rate
    if math.isinf(trace.duration_s * factor):
        raise ConfigError(f"{trace.name}: at {rate:g} requests a second the last one never arrives; raise the rate")
    return replace(trace, requests=tuple(replace(one, arrival_s=one.arrival_s * factor) for one in trace.requests))


def scale_lengths(trace: Trace, factor: float) -> Trace:
    """Lengths times `factor`, rounded up. With block ids the block size is scaled, and every prompt keeps its ids.

    Raises:
        ConfigError: a block would have less than one token, or lengths overflow.
    """
    size = trace.block_size
    longest = max(max(one.input_length, one.output_length) for one in trace.requests)
    if not factor > 0 or max(longest, size or 0) * factor > _MOST_TOKENS:
        raise ConfigError(
            f"{trace.name}: {factor:g} times its lengths, of up to {longest:g} tokens, expected from 1 to "
            f"{_MOST_TOKENS:g} tokens"
        )
    new_size = None if size is None else round(size * factor)
    if new_size == 0:
        raise ConfigError(
            f"{trace.name}: {factor} of a block of {size} tokens is none; expected {1 / (size or 1)} or more"
        )

    def scaled(request: TraceRequest) -> TraceRequest:
        whole = max(0, len(request.block_ids) - 1)  # blocks before the last, which may be partial
        if size is None or new_size is None or not request.block_ids:
            input_length = math.ceil(request.input_length * factor)
        else:
            rest = math.ceil((request.input_length - whole * size) * factor)
            input_length = whole * new_size + min(rest, new_size)
        return replace(request, input_length=input_length, output_length=math.ceil(request.output_length * factor))

    return replace(trace, requests=tuple(map(scaled, trace.requests)), block_size=new_size)


def cut_lengths(trace: Trace, max_len: int) -> tuple[Trace, int]:
    """No request longer than `max_len` tokens, prompt and output together: prompts lose their ends, then outputs.

    An output is cut only where it would leave its prompt no token.

    Returns:
        The trace, and how many of its requests were cut.

    Raises:
        ConfigError: `max_len` is below 2.
    """
    if max_len < 2:
        raise ConfigError(f"a request needs 2 tokens or more, prompt and output; the most is {max_len}")
    size = trace.block_size

    def cut(request: TraceRequest) -> TraceRequest:
        output_length = min(request.output_length, max_len - 1)
        input_length = min(request.input_length, max_len - output_length)
        if (input_length, output_length) == (request.input_length, request.output_length):
            return request
        kept = request.block_ids if size is None else request.block_ids[: -(-input_length // size)]
        return replace(request, input_length=input_length, output_length=output_length, block_ids=kept)

    requests = tuple(map(cut, trace.requests))
    num_cut = sum(new is not old for new, old in zip(requests, trace.requests, strict=True))
    return replace(trace, requests=requests), num_cut
