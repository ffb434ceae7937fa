"""`ProfileFolder`: where the traces of the one profile go that may be taken at a time."""

from __future__ import annotations

from pathlib import Path

from vcore.errors import EngineError

__all__ = ["ProfileFolder"]


class ProfileFolder:
    """Remembers whether a profile is being taken. It starts and stops none."""

    def __init__(self) -> None:
        """None is being taken."""
        self._folder: Path | None = None

    def begin(self, folder: str | Path | None) -> Path:
        """One begins; its folder, ``vcore_profile`` in the working directory by default, is made if it is not there.

        Raises:
            EngineError: one is being taken already, or the folder cannot be made.
        """
        if self._folder is not None:
            raise EngineError(f"a profile is being taken already, into {self._folder}: stop it first")
        target = Path("vcore_profile" if folder is None else folder).resolve()
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(
                f"the folder of the profile cannot be made: {error}. Make room for it, or name another"
            ) from error
        self._folder = target
        return target

    def end(self) -> Path:
        """It ends; its folder.

        Raises:
            EngineError: none is being taken.
        """
        if self._folder is None:
            raise EngineError("no profile is being taken: call start_profile first")
        target, self._folder = self._folder, None
        return target

    def forget(self) -> None:
        """It did not begin, or the engine is gone and the profile with it."""
        self._folder = None
