"""`PolicyStanding`: whether one policy is still trusted, and what it did if it is not.

Owns the log line, the line for ``/health`` and the error of strict mode. Knows no policy's contract.
"""

from __future__ import annotations

import logging
import reprlib

from vcore.errors import PolicyError

__all__ = ["POLICY_FAULTS", "PolicyStanding"]

logger = logging.getLogger(__name__)

POLICY_FAULTS = (Exception, SystemExit)
"""What of a policy's exceptions costs it its standing: ``sys.exit()`` in one must not end the process in mid-plan."""


class PolicyStanding:
    """Trusted until the first fault; a fault is told once."""

    __slots__ = ("_fallback", "_strict", "_title", "fault", "trusted")

    def __init__(self, title: str, *, fallback: str, strict: bool) -> None:
        """A trusted policy.

        Args:
            title: kind, name, distribution and version, as the message of a fault begins.
            fallback: what serves instead, e.g. ``"the longest free block goes first"``.
            strict: whether a fault is fatal.
        """
        self._title = title
        self._fallback = fallback
        self._strict = strict
        self.trusted = True
        self.fault: str | None = None
        """One line that names the policy and what it did; None while it is trusted."""

    def lose(self, call: str, *, expected: str, found: object = None, error: BaseException | None = None) -> None:
        """Distrust the policy from now on, and say so once.

        Args:
            call: the method that went wrong.
            expected: what it should have done.
            found: what it answered, if it did not raise.
            error: what it raised, if it did.

        Raises:
            PolicyError: in strict mode.
        """
        if not self.trusted:
            return
        self.trusted = False
        what = f"raised {_told(error)}" if error is not None else f"answered {_told(found)}"
        self.fault = f"{self._title}: {call} {what}; expected {expected}"
        if self._strict:
            raise PolicyError(
                f"{self.fault}. plugins.strict is set, so this ends the engine: "
                "repair the policy, choose another one, or unset plugins.strict."
            ) from error
        logger.error(
            "%s. From now on %s; repair the policy or choose another one.",
            self.fault,
            self._fallback,
            exc_info=error,
        )


def _told(value: object) -> str:
    """A short text of `value`, whose own ``__repr__`` may be broken too."""
    try:
        return reprlib.repr(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"
