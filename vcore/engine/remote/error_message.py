"""`ErrorMessage`: an error as it crosses between processes, where it is raised again as what it was."""

from __future__ import annotations

from msgspec import Struct

from vcore import errors
from vcore.errors import EngineError, RequestError, VcoreError

__all__ = ["ErrorMessage"]


class ErrorMessage(Struct, array_like=True, frozen=True):
    """The class, text and parameter of an error."""

    kind: str
    """The name of the nearest class in `vcore.errors`, or else of the class itself."""
    text: str
    param: str | None = None
    """`RequestError.param`."""

    @classmethod
    def of(cls, error: BaseException) -> ErrorMessage:
        """What crosses of `error`."""
        known = (one.__name__ for one in type(error).__mro__ if one.__name__ in errors.__all__)
        kind = next(known, type(error).__name__)
        return cls(kind, str(error), error.param if isinstance(error, RequestError) else None)

    def error(self) -> VcoreError:
        """The error, of the class that it had; an `EngineError` with its name if it was none of ours."""
        if self.kind not in errors.__all__:
            return EngineError(f"{self.kind}: {self.text}")
        kind: type[VcoreError] = getattr(errors, self.kind)
        if issubclass(kind, RequestError):
            return kind(self.text, param=self.param)
        return kind(self.text)
