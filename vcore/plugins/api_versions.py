"""The version of each kind's contract that this vcore serves: one table, and the rule that reads it.

A contract's MINOR grows with every addition that an older plugin can ignore (a context field, a
defaulted spec field, a method with a body); its MAJOR with every other change. This major and the
one before it are served, the latter through an adapter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from vcore.plugins.specs import PluginKind
from vcore.version import __version__

__all__ = ["SERVED_APIS", "ApiVersion", "ServedApi", "api_problem"]

_FORM = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")


class ApiVersion(NamedTuple):
    """MAJOR.MINOR of a contract."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> ApiVersion:
        """The version that `text` states, as ``"1.0"``.

        Raises:
            ValueError: it is not of the form MAJOR.MINOR.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"api={text!r} is not of the form 'MAJOR.MINOR', such as '1.0'")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True)
class ServedApi:
    """What is served of one kind."""

    current: ApiVersion
    previous_adapter: str | None = None
    """``"module:callable"`` that turns an instance of the previous major into one of this one.

    None where there has been no previous major.
    """

    @property
    def majors(self) -> tuple[int, ...]:
        """The majors that are served, the current one first."""
        if self.previous_adapter is None:
            return (self.current.major,)
        return (self.current.major, self.current.major - 1)


SERVED_APIS: dict[PluginKind, ServedApi] = {
    PluginKind.MODEL: ServedApi(ApiVersion(1, 0)),
    PluginKind.ATTENTION_BACKEND: ServedApi(ApiVersion(1, 0)),
    PluginKind.SCHEDULING_POLICY: ServedApi(ApiVersion(1, 0)),
    PluginKind.EVICTION_POLICY: ServedApi(ApiVersion(1, 0)),
    PluginKind.ROUTING_POLICY: ServedApi(ApiVersion(1, 0)),
    PluginKind.WEIGHT_LOADER: ServedApi(ApiVersion(1, 0)),
    PluginKind.MODEL_SOURCE: ServedApi(ApiVersion(1, 0)),
    PluginKind.EXECUTOR: ServedApi(ApiVersion(1, 0)),
    PluginKind.LOGITS_PROCESSOR: ServedApi(ApiVersion(1, 0)),
    PluginKind.OBSERVER: ServedApi(ApiVersion(1, 0)),
    PluginKind.TOOL_PARSER: ServedApi(ApiVersion(1, 0)),
    PluginKind.REASONING_PARSER: ServedApi(ApiVersion(1, 0)),
}
"""The contract of each kind that this vcore serves."""


def api_problem(kind: PluginKind, stated: str, distribution: str) -> str | None:
    """Why a plugin written for `stated` cannot be served, with the remedy; None if it can.

    Raises:
        ValueError: `stated` is not of the form MAJOR.MINOR.
    """
    wanted = ApiVersion.parse(stated)
    served = SERVED_APIS[kind]
    if wanted.major == served.current.major and wanted.minor > served.current.minor:
        remedy = "upgrade vcore-engine"
    elif wanted.major in served.majors:
        return None
    elif wanted.major > served.current.major:
        remedy = f"upgrade vcore-engine, or install an older version of {distribution}"
    else:
        remedy = f"upgrade {distribution}, or ask its authors to port it"
    majors = " and ".join(f"{major}.x" for major in served.majors)
    return (
        f"it was written for {kind.value} API {wanted}, but vcore-engine {__version__} serves {majors} "
        f"up to {served.current}; {remedy}"
    )
