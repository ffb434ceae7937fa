"""`SourceChoice`: what requests a load is made of, as a command line says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vcore.bench.serve.prompt_file import PromptFile
from vcore.bench.serve.source import LoadSource, RandomSource
from vcore.bench.serve.target import TargetInfo
from vcore.bench.serve.trace_source import TraceSource
from vcore.bench.workloads import WORKLOADS
from vcore.errors import ConfigError
from vcore.traces import cut_lengths, read_trace, scale_lengths

__all__ = ["SourceChoice"]

_WORKLOAD = "nano"
_OUTPUT_LEN = 128
_VOCAB_SIZE = 1000
"""Of a server that does not say: every vocabulary has as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChoice:
    """A workload, a file of prompts, or a trace."""

    workload: str | None = None
    prompts: Path | None = None
    output_len: int | None = None
    """For lines of `prompts` that say nothing."""
    trace: Path | None = None
    trace_format: str | None = None
    length_scale: float | None = None
    vocab_size: int | None = None
    is_chat: bool = False

    def prepare(self) -> Callable[[TargetInfo], LoadSource]:
        """Read what there is to be read; what comes back makes the source once the target is known.

        Raises:
            ConfigError: options do not go together, or a file is wrong.
        """
        self._check()
        if self.trace is not None:
            return self._prepare_trace(self.trace)
        if self.prompts is not None:
            source = PromptFile(self.prompts, num_output_tokens=self.output_len or _OUTPUT_LEN)
            if source.has_conversations and not self.is_chat:
                raise ConfigError(f"{self.prompts} has conversations, which need --endpoint chat")
            return lambda _: source
        name = self.workload or _WORKLOAD
        if name not in WORKLOADS:
            raise ConfigError(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
        return lambda info: RandomSource(name, vocab_size=self._vocab_size(info))

    def _check(self) -> None:
        given = [name for name in ("workload", "prompts", "trace") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(
                f"--{' and --'.join(given)} are given: requests come from one of them, leave the rest out"
            )
        if self.prompts is None and self.output_len is not None:
            raise ConfigError("--output-len is for --prompts: a workload and a trace have lengths of their own")
        if self.trace is None and (self.length_scale is not None or self.trace_format is not None):
            raise ConfigError("--trace-format and --length-scale are for --trace: name its file, or leave them out")

    def _prepare_trace(self, path: Path) -> Callable[[TargetInfo], LoadSource]:
        trace = read_trace(path, self.trace_format or "auto")
        if self.length_scale is not None:
            trace = scale_lengths(trace, self.length_scale)

        def make(info: TargetInfo) -> LoadSource:
            fitting, num_cut = (trace, 0) if info.max_model_len is None else cut_lengths(trace, info.max_model_len)
            return TraceSource(fitting, vocab_size=self._vocab_size(info), num_cut=num_cut)

        return make

    def _vocab_size(self, info: TargetInfo) -> int:
        return self.vocab_size or info.vocab_size or _VOCAB_SIZE
