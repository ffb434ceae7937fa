"""`KernelCase`: one batch of equal requests that attention is timed on, and how a command line writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vcore.errors import ConfigError

__all__ = ["CPU_CASES", "DEVICE_CASES", "KernelCase", "parse_cases"]

DEVICE_CASES = "decode:64x2048,decode:1x16384,decode:1x1024,prefill:4x4096"
"""What an accelerator is timed on unless told otherwise: a full batch, one long and one short context, prompts."""
CPU_CASES = "decode:8x512,decode:1x2048,prefill:1x512"
"""The same of a CPU, in some seconds."""

_PATTERN = re.compile(r"(?P<kind>decode|prefill):(?P<rows>\d+)x(?P<tokens>\d+)(?:\+(?P<cached>\d+))?", re.ASCII)
_EXPECTED = (
    "expected decode:ROWSxTOKENS, prefill:ROWSxTOKENS or prefill:ROWSxTOKENS+CACHED with numbers from 1, "
    "several with commas between, such as decode:64x2048,prefill:4x1024+3072"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCase:
    """Some requests, all with as many tokens in this step and as many in the cache."""

    num_requests: int
    query_len: int
    """Tokens of each request in this step; 1 makes it a decode step."""
    seq_len: int
    """Tokens of each request's context, those of this step included."""

    def __post_init__(self) -> None:
        assert self.num_requests > 0
        assert 0 < self.query_len <= self.seq_len

    @property
    def is_decode(self) -> bool:
        """Whether every request computes one token."""
        return self.query_len == 1

    @property
    def name(self) -> str:
        """As `parse_cases` reads it."""
        if self.is_decode:
            return f"decode:{self.num_requests}x{self.seq_len}"
        cached = self.seq_len - self.query_len
        return f"prefill:{self.num_requests}x{self.query_len}" + (f"+{cached}" if cached else "")

    @property
    def num_tokens(self) -> int:
        """Query tokens of the batch."""
        return self.num_requests * self.query_len

    @property
    def num_context_tokens(self) -> int:
        """Tokens whose keys and values the batch reads."""
        return self.num_requests * self.seq_len

    @property
    def num_pairs(self) -> int:
        """Pairs of a query and a key that it sees, under the causal mask."""
        new, cached = self.query_len, self.seq_len - self.query_len
        return self.num_requests * (new * cached + new * (new + 1) // 2)


def parse_cases(text: str) -> list[KernelCase]:
    """The cases of ``decode:ROWSxTOKENS,prefill:ROWSxTOKENS+CACHED``.

    A decode's TOKENS are those of the context, the new one included; a prefill's are new, after CACHED in the cache.

    Raises:
        ConfigError: one of them is malformed or empty, or a prefill of one token, which is a decode.
    """
    return [_parse(one.strip()) for one in text.split(",")]


def _parse(text: str) -> KernelCase:
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ConfigError(f"--cases: found {text!r}, {_EXPECTED}")
    rows, tokens, cached = int(match["rows"]), int(match["tokens"]), int(match["cached"] or 0)
    is_decode = match["kind"] == "decode"
    if rows < 1 or tokens < 1 or (is_decode and match["cached"] is not None):
        raise ConfigError(f"--cases: found {text!r}, {_EXPECTED}")
    if is_decode:
        return KernelCase(num_requests=rows, query_len=1, seq_len=tokens)
    if tokens == 1:
        decode = f"decode:{rows}x{tokens + cached}"
        raise ConfigError(f"--cases: found {text!r}, but a step of one token a request is a decode: write {decode}")
    return KernelCase(num_requests=rows, query_len=tokens, seq_len=tokens + cached)
