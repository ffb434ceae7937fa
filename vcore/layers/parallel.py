"""Tensor parallelism as layers see it: this rank's share, and the exchange that completes a result."""

from __future__ import annotations

import torch

from vcore.errors import ConfigError
from vcore.interfaces.collective import Collective
from vcore.interfaces.model import BuildContext

__all__ = ["rank_share", "require_collective"]


class _Alone:
    """The `Collective` of a single rank."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


_ALONE = _Alone()


def require_collective(context: BuildContext) -> Collective:
    """The exchange among `context`'s ranks; the identity if there is one rank.

    Raises:
        ConfigError: there are several ranks, but the context brings no collective.
    """
    if context.tp_size == 1:
        return _ALONE
    if context.collective is None:
        raise ConfigError(
            f"tensor_parallel_size is {context.tp_size}, but the executor gave the model no collective, so its "
            f"ranks cannot exchange results. Choose an executor for several ranks, or set "
            f"runtime.tensor_parallel_size to 1."
        )
    return context.collective


def rank_share(total: int, context: BuildContext, what: str) -> int:
    """How many of `total` are this rank's.

    Raises:
        ConfigError: the ranks do not divide `total`; the message calls it `what`.
    """
    share, rest = divmod(total, context.tp_size)
    if rest:
        raise ConfigError(
            f"tensor_parallel_size {context.tp_size} does not divide this model's {total} {what}. "
            f"Set runtime.tensor_parallel_size to a divisor of {total}."
        )
    return share
