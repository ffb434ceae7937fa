"""`ServerContext`: what endpoints work with, and how they get it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from vcore.config import ServerSettings
from vcore.engine.prompts import Prompt
from vcore.errors import RequestError
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams
from vcore.server.admission import Admission
from vcore.server.chat_template_file import read_chat_template
from vcore.server.embedding_run import EmbeddingRun
from vcore.server.field_names import FieldNames
from vcore.server.generation import Generation
from vcore.server.served_models import ServedModels
from vcore.server.tool_calls import ChatFormat, choose_chat_format
from vcore.version import __version__

if TYPE_CHECKING:
    from vcore.server.engine_client import EngineClient
    from vcore.tokenizer import Tokenizer

__all__ = ["FINGERPRINT", "Context", "ServerContext", "new_id"]

FINGERPRINT = f"vcore-{__version__}"
"""Answers with the same one were made by the same code."""


_UNRESOLVED_SEQS = 256


def new_id(prefix: str) -> str:
    """A name that no other answer has."""
    return f"{prefix}{uuid.uuid4().hex}"


@dataclass(frozen=True)
class ServerContext:
    """What every endpoint shares; one for each application."""

    engine: EngineClient
    settings: ServerSettings
    admission: Admission
    models: ServedModels
    chat_format: ChatFormat
    """The parsers of conversations."""
    chat_template: str | None
    """The template that is used in the place of the model's own."""

    @classmethod
    def create(cls, engine: EngineClient, settings: ServerSettings) -> ServerContext:
        """Of an engine that is resolved.

        Raises:
            ConfigError: as `read_chat_template`.
            PluginError: a parser that is named cannot be used.
        """
        scheduler = engine.config.scheduler
        max_running = _UNRESOLVED_SEQS if scheduler.max_num_seqs == "auto" else scheduler.max_num_seqs
        template = None if settings.chat_template is None else read_chat_template(settings.chat_template)
        _warm_up(engine, template)
        return cls(
            engine=engine,
            settings=settings,
            admission=Admission(engine, max_running=max_running, max_queue=settings.max_queue),
            models=ServedModels(engine, settings.model_names),
            chat_format=choose_chat_format(
                engine.config.chat, engine.catalog, _tokenizer(engine), chat_template=template
            ),
            chat_template=template,
        )

    def generation(
        self, request_id: str, prompts: Sequence[Prompt], params: SamplingParams, *, fields: FieldNames
    ) -> Generation:
        """Prompts, ready to run; `fields` are the client's."""
        return Generation(
            self.engine,
            self.admission,
            request_id=request_id,
            prompts=prompts,
            params=params,
            timeout_s=self.settings.request_timeout_s,
            fields=fields,
        )

    def embedding(self, request_id: str, prompts: Sequence[Prompt], params: PoolingParams) -> EmbeddingRun:
        """Inputs to embed, ready to run."""
        timeout = self.settings.request_timeout_s
        return EmbeddingRun(
            self.engine, self.admission, request_id=request_id, prompts=prompts, params=params, timeout_s=timeout
        )


def _tokenizer(engine: EngineClient) -> Tokenizer | None:
    try:
        return engine.get_tokenizer()
    except RequestError:
        return None


def _warm_up(engine: EngineClient, template: str | None) -> None:
    """Render something now: the first time takes most of a second, in which nobody else would be served."""
    options = {} if template is None else {"chat_template": template}
    with contextlib.suppress(RequestError):  # there is no template, or it wants another conversation
        engine.render_chat([{"role": "user", "content": "hi"}], **options)


async def _context(request: Request) -> ServerContext:
    return cast(ServerContext, request.app.state.context)


Context = Annotated[ServerContext, Depends(_context)]
"""As an endpoint's parameter."""
