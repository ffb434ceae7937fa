"""`Profile`: one profile at a time of an engine that may be in another process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from vcore.engine.profile_folder import ProfileFolder
from vcore.engine.remote.messages import CallName, Reply

__all__ = ["Profile"]

Ask = Callable[[CallName, str | None], Awaitable[Reply]]
"""`EngineSession.ask`."""


class Profile:
    """Starts and stops the profiler, and remembers where its traces go."""

    def __init__(self, ask: Ask) -> None:
        """None is being taken."""
        self._ask = ask
        self._folder = ProfileFolder()

    async def start(self, folder: str | Path | None) -> Path:
        """Start one; its folder, ``vcore_profile`` in the working directory by default, is made if it is not there.

        Raises:
            EngineError: one is being taken already, or the folder cannot be made.
            EngineDeadError: the engine is not ready, or dies meanwhile.
        """
        target = self._folder.begin(folder)
        try:
            await self._ask("start_profile", str(target))
        except Exception:  # not when cancelled: then it may have started, and has to be stopped
            self._folder.forget()
            raise
        return target

    async def stop(self) -> Path:
        """Stop it; the folder with the traces.

        Raises:
            EngineError: none is being taken.
            EngineDeadError: the engine is not ready, or dies meanwhile.
        """
        target = self._folder.end()
        await self._ask("stop_profile", None)
        return target

    def forget(self) -> None:
        """The engine is gone, and the profile with it."""
        self._folder.forget()
