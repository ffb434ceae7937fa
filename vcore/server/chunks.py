"""`stream_chunks`: what a generation brings, as events of OpenAI's chunks, with the usage that the client asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from vcore.server.json_response import encode
from vcore.server.sse import DONE

if TYPE_CHECKING:
    from vcore.outputs import RequestOutput
    from vcore.server.generation import Generation
    from vcore.server.protocol.common import StreamOptions
    from vcore.server.usage import UsageCount

__all__ = ["stream_chunks", "tells_counts"]


def tells_counts(options: StreamOptions | None) -> bool:
    """Whether every chunk says how many tokens there were so far."""
    return options is not None and bool(options.continuous_usage_stats)


async def stream_chunks(
    generation: Generation,
    head: Mapping[str, Any],
    pieces: Callable[[int, RequestOutput], Iterable[Mapping[str, Any]]],
    usage: UsageCount,
    options: StreamOptions | None,
) -> AsyncGenerator[bytes, None]:
    """Run, and tell what is new.

    Args:
        generation: not yet run.
        head: what all chunks have in common, with no choices.
        pieces: from a prompt's index and an output to what it brings, each piece the only choice of a chunk.
        usage: nothing counted yet.
        options: the client's.

    Yields:
        One event or more, and at last the end of the stream.
    """
    tells_usage = options is not None and bool(options.include_usage)
    continuous = tells_counts(options)
    # A chunk is encoded at every token of every stream, so that what all have in common is encoded once.
    common = encode({key: value for key, value in head.items() if key != "choices"}).removesuffix(b"}")
    begin = b'data: %b,"choices":[' % common
    end = b"]%b}\n\n" % (b',"usage":null' if tells_usage else b"")
    async with aclosing(generation.outputs("delta")) as outputs:
        async for index, output in outputs:
            usage.add(index, output)
            chunks = [begin + encode(choice) for choice in pieces(index, output)]
            if chunks:
                if continuous:
                    end = b'],"usage":%b}\n\n' % encode(usage.usage())
                yield end.join(chunks) + end
    last = b'%b],"usage":%b}\n\n' % (begin, encode(usage.usage())) if tells_usage else b""
    yield last + DONE
