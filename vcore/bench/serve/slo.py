"""`Slo`: the latencies that a request must keep to count as good."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from vcore.bench.serve.record import RequestRecord
from vcore.errors import ConfigError

__all__ = ["Slo", "parse_slo"]

_EXPECTED = "expected KEY=SECONDS with the keys ttft, itl, e2e, each once, such as ttft=2,itl=0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Upper bounds in seconds; None for no bound.

    Goodput, the requests a second that keep all bounds, is as in "DistServe" (OSDI'24, arXiv:2401.09670).
    """

    ttft: float | None = None
    """To the first token."""
    itl: float | None = None
    """Between tokens, as the mean of the request (`RequestRecord.tpot`)."""
    e2e: float | None = None
    """To the last token."""

    def met_by(self, record: RequestRecord) -> bool:
        """Whether the request came to its end within all bounds."""
        return (
            record.ok
            and (self.ttft is None or record.ttft <= self.ttft)
            and (self.itl is None or (record.tpot or 0.0) <= self.itl)
            and (self.e2e is None or record.e2e <= self.e2e)
        )

    def describe(self) -> dict[str, float]:
        """The bounds that there are."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def parse_slo(text: str) -> Slo:
    """The bounds of ``ttft=2,itl=0.1``.

    Raises:
        ConfigError: a key is unknown, given twice or without a positive number.
    """
    bounds: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if key not in Slo.__dataclass_fields__ or key in bounds or not 0 < seconds < math.inf:
            raise ConfigError(f"--slo: found {part.strip()!r}, {_EXPECTED}")
        bounds[key] = seconds
    return Slo(**bounds)
