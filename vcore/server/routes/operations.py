"""What operators do to the engine: profiling, and forgetting the prefix cache. Off unless enabled, or behind a key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Response
from typing_extensions import TypedDict

from vcore.errors import EngineDeadError, EngineError
from vcore.server.context import Context, ServerContext
from vcore.server.errors import ApiError
from vcore.server.json_response import JsonResponse
from vcore.server.routes.declarations import error_responses

__all__ = ["router"]

router = APIRouter(tags=["operations"], responses=error_responses(401, 403, 408, 409, 413, 500, 503))


class Profile(TypedDict):
    """Where the traces are."""

    folder: str
    """On the server."""


class Reset(TypedDict):
    """What became of the prefix cache."""

    reset: bool


@router.post("/start_profile", operation_id="startProfile", response_model=Profile)
async def start_profile(context: Context) -> Response:
    """Begin to record what the engine does."""
    return await _profile(context, context.engine.start_profile)


@router.post("/stop_profile", operation_id="stopProfile", response_model=Profile)
async def stop_profile(context: Context) -> Response:
    """End the recording, and write the traces."""
    return await _profile(context, context.engine.stop_profile)


@router.post("/reset_prefix_cache", operation_id="resetPrefixCache", response_model=Reset)
async def reset_prefix_cache(context: Context) -> Response:
    """Forget every cached prefix; running requests keep theirs."""
    _allow(context.settings.reset_allowed, "--enable-reset")
    context.admission.check_engine()
    answer: Reset = {"reset": await context.engine.reset_prefix_cache()}
    return JsonResponse(answer)


async def _profile(context: ServerContext, act: Callable[[], Awaitable[Path]]) -> Response:
    """Let the engine start or stop a profile."""
    _allow(context.settings.profile_allowed, "--enable-profile")
    context.admission.check_engine()
    try:
        folder = await act()
    except EngineError as error:
        raise _conflict(error) from error
    answer: Profile = {"folder": str(folder)}
    return JsonResponse(answer)


def _allow(allowed: bool, option: str) -> None:
    if not allowed:
        message = f"this is off: start the server with {option}, or with an API key"
        raise ApiError(403, message, type="permission_error", code="not_enabled")


def _conflict(error: EngineError) -> Exception:
    """Such as a profile that is being taken already; a dead engine is another matter."""
    return error if isinstance(error, EngineDeadError) else ApiError(409, str(error), code="conflict")
