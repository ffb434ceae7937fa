"""`Profile`: one profile at a time of an engine that may be in another process."""

from __future__ import annotations

from pathlib import Path

from vcore.engine.profile_folder import ProfileFolder
from vcore.engine.remote.calls import Calls

__all__ = ["Profile"]


class Profile:
    """Starts and stops the profiler, and remembers where its traces go."""

    def __init__(self, calls: Calls) -> None:
        """None is being taken."""
        self._calls = calls
        self._folder = ProfileFolder()

    async def start(self, folder: str | Path | None) -> Path:
        """Start one; its folder, ``vcore_profile`` in the working directory by default, is made if it is not there.

        Raises:
            EngineError: one is being taken already.
        """
        target = self._folder.begin(folder)
        try:
            await self._calls.ask("start_profile", str(target))
        except Exception:  # not when cancelled: then it may have started, and has to be stopped
            self._folder.forget()
            raise
        return target

    async def stop(self) -> Path:
        """Stop it; the folder with the traces.

        Raises:
            EngineError: none is being taken.
        """
        target = self._folder.end()
        await self._calls.ask("stop_profile")
        return target

    def forget(self) -> None:
        """The engine is gone, and the profile with it."""
        self._folder.forget()
