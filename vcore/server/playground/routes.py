"""``/``, ``/ui/static/...`` and what the page asks for every second: ``/ui/state`` and ``/ui/blocks``."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from jinja2 import Environment

from vcore.errors import EngineError
from vcore.server.playground.assets import Assets
from vcore.version import __version__

if TYPE_CHECKING:
    from vcore.server.playground.block_picture import BlockPicture
    from vcore.server.playground.live_state import LiveState

__all__ = ["SECURITY_HEADERS", "make_router"]

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""Nothing but our own files is loaded, and no text can become markup or code, whoever wrote it."""
_FRESH = {"Cache-Control": "no-store"}


def make_router(live: LiveState, blocks: BlockPicture, *, model_names: tuple[str, ...], guarded: bool) -> APIRouter:
    """The page's endpoints, which are none of the API's.

    Args:
        live: the engine's state.
        blocks: the picture of its cache.
        model_names: what the model is called, if it is called otherwise than by its path.
        guarded: whether an API key is needed, so that the page asks for it at once.
    """
    router = APIRouter(include_in_schema=False)
    assets = Assets()
    source = files(__package__).joinpath("templates", "index.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    page = template.render(version=__version__, model_name=(*model_names, "")[0], guarded=guarded)

    @router.get("/")
    async def index() -> Response:
        return Response(page, media_type="text/html", headers=SECURITY_HEADERS | _FRESH)

    @router.get("/ui/static/{name}")
    async def asset(name: str, request: Request) -> Response:
        found = assets.get(name)
        if found is None:
            return Response("not found", status_code=404, media_type="text/plain", headers=SECURITY_HEADERS)
        headers = SECURITY_HEADERS | {"ETag": found.etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)

    @router.get("/ui/state")
    async def state(response: Response) -> dict[str, Any]:
        response.headers.update(_FRESH)
        return await live.now()

    @router.get("/ui/blocks")
    async def block_states() -> Response:
        try:
            count, packed = await blocks.take()
        except EngineError:  # it is being restarted, as the state tells
            count, packed = 0, b""
        headers = {"X-Num-Blocks": str(count)} | _FRESH
        return Response(packed, media_type="application/octet-stream", headers=headers)

    return router
