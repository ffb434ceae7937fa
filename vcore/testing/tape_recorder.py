"""`TapeRecorder`: records pieces on the CPU, as CUDA graphs do on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vcore.runner.recorder import Recorder, Replay

__all__ = ["TapeRecorder"]


class TapeRecorder(Recorder):
    """Keeps every operation on tensors that is called between `begin` and `end`, with the tensors themselves; a replay
    calls them again and puts the results where they were. So it refuses what a device could not record either (a
    value that the host waits for), and shows what Python computed from one step and a replay does not repeat.

    Other than on a device, what is recorded is computed as well, and memory is not used again.
    """

    def __init__(self) -> None:
        self._tape: _Tape | None = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """As the contract says."""
        try:
            yield
        finally:
            if self._tape is not None:
                self.end()

    def begin(self) -> None:
        """From here on, operations are recorded."""
        self._tape = _Tape()
        self._tape.__enter__()  # type: ignore[no-untyped-call]  # torch's own

    def end(self) -> Replay:
        """Repeats what was recorded."""
        tape, self._tape = self._tape, None
        assert tape is not None
        tape.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return tape.replay

    def alias(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself."""
        return tensor

    def as_one(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """`function`, recorded as one operation on its arguments, whatever it does within: for references of kernels
        that wait for values."""

        def recorded(*args: Any, **kwargs: Any) -> torch.Tensor:
            tape = self._tape
            if tape is None:
                return function(*args, **kwargs)
            with torch.utils._python_dispatch._disable_current_modes():
                result = function(*args, **kwargs)
            tape.add(partial(function, *args, **kwargs), [result])
            return result

        return recorded


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What was called, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Callable[[], Any], Sequence[torch.Tensor]]] = []

    def add(self, call: Callable[[], Any], results: Sequence[torch.Tensor]) -> None:
        """A call, and those of its results that are tensors of its own."""
        self._calls.append((call, results))

    def replay(self) -> None:
        """Call all again."""
        for call, results in self._calls:
            again = _tensors(call())
            for old, new in zip(results, again, strict=bool(results)):
                old.copy_(new)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a value that the host waits for cannot be recorded")
        result = func(*args, **kwargs)
        call = partial(func, *args, **kwargs)
        if func._schema.is_mutable:
            self.add(call, ())
            return result
        given = {_address(tensor) for tensor in _tensors((args, kwargs))}
        results = _tensors(result)
        if not any(_address(tensor) in given for tensor in results):  # else they are views
            self.add(call, results)
        return result


def _tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _address(tensor: torch.Tensor) -> int:
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage().data_ptr()
