"""`infer_block_size`: how many prompt tokens one block id of a trace stands for, which files do not say."""

from __future__ import annotations

from collections.abc import Iterable

from vcore.errors import ConfigError
from vcore.traces.trace import TraceRequest

__all__ = ["infer_block_size"]

_USUAL = 512
"""Of Mooncake's traces; taken where the lengths leave it open."""


def infer_block_size(requests: Iterable[TraceRequest], name: str) -> int | None:
    """The block size with which every request has as many ids as its prompt fills blocks.

    A prompt of `length` tokens with n ids says that (n - 1) * size < length <= n * size. Of the sizes that fit them
    all, 512 is taken, or else the least power of two, or else the least.

    Args:
        requests: those without ids say nothing.
        name: of the file, for the error.

    Returns:
        Tokens a block; None if no request has ids.

    Raises:
        ConfigError: no size fits.
    """
    least, most = 1, None
    any_ids = False
    for request in requests:
        count = len(request.block_ids)
        if not count:
            continue
        any_ids = True
        least = max(least, -(-request.input_length // count))
        if count > 1:
            own = (request.input_length - 1) // (count - 1)
            most = own if most is None else min(most, own)
        if most is not None and least > most:
            raise ConfigError(
                f"{name}: the hash_ids of a request of {request.input_length} tokens are {count}, which fits no block "
                f"size that fits the requests before it; expected input_length / block size, rounded up, in every row"
            )
    if not any_ids:
        return None
    if least <= _USUAL and (most is None or most >= _USUAL):
        return _USUAL
    power = 1 << (least - 1).bit_length()
    return power if most is None or power <= most else least
