"""`HTTPTarget`: any server that speaks OpenAI's completions or chat completions."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import msgspec

from vcore.bench.serve.completion_stream import CompletionStream, error_message
from vcore.bench.serve.http_client import HTTPClient
from vcore.bench.serve.http_exchange import ExchangeError
from vcore.bench.serve.http_options import HTTPOptions
from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.target import TargetError, TargetInfo
from vcore.errors import ConfigError, EngineError

__all__ = ["HTTPTarget"]

_MAX_ERROR_BYTES = 64 * 1024
_encoder = msgspec.json.Encoder()


class HTTPTarget:
    """Streams completions with usage."""

    def __init__(self, url: str, options: HTTPOptions | None = None) -> None:
        """Args:
        url: such as ``http://localhost:8000``, with ``/v1`` or without.
        options: how requests look.

        Raises:
            ConfigError: the URL is none of a server.
        """
        self._url = url.rstrip("/").removesuffix("/v1")
        self._options = options or HTTPOptions()
        self._client = HTTPClient(self._url, api_key=self._options.api_key, verify=self._options.verify)
        self._info = TargetInfo(name=self._url, model=self._options.model or "")

    async def __aenter__(self) -> Self:
        """Ask which models there are.

        Raises:
            EngineError: the server cannot be reached, refuses, or lists no model.
            ConfigError: it does not serve the model that was named.
        """
        self._info = await self._ask()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        self._client.close()

    def info(self) -> TargetInfo:
        """What the server lists."""
        return self._info

    async def run(self, request: LoadRequest, record: RequestRecord) -> None:
        """Stream one completion.

        Raises:
            TargetError: ``http_STATUS``, ``connect``, ``cut``, ``malformed``, ``stream_error``, ``token_count``, or
                the finish reason of a request that failed.
        """
        stream, refusal = CompletionStream(record), bytearray()

        def take(status: int, piece: bytes, now: float) -> None:
            if status == 200:
                stream.feed(piece, now)
            elif len(refusal) < _MAX_ERROR_BYTES:
                refusal.extend(piece)

        try:
            status = await self._client.exchange("POST", self._options.endpoint.path, self._body(request), take)
        except ExchangeError as error:
            raise TargetError(error.kind, str(error)) from None
        if status != 200:
            raise TargetError(f"http_{status}", error_message(bytes(refusal)))
        stream.finish()

    def _body(self, request: LoadRequest) -> bytes:
        options = self._options
        body: dict[str, Any] = {
            "model": self._info.model,
            "max_tokens": request.num_output_tokens,
            "temperature": options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        if options.is_chat:
            body["messages"] = request.messages or [{"role": "user", "content": request.text}]
        else:
            body["prompt"] = request.text if request.token_ids is None else request.token_ids
        if options.ignore_eos:
            body["ignore_eos"] = True
        if request.priority:
            body["priority"] = request.priority
        body |= options.extra_body
        return _encoder.encode({key: value for key, value in body.items() if value is not None})

    async def _ask(self) -> TargetInfo:
        try:
            async with asyncio.timeout(30):
                status, body = await self._client.get("/v1/models")
        except TimeoutError:
            raise EngineError(f"{self._url}/v1/models did not answer within 30 s") from None
        except ExchangeError as error:
            raise EngineError(f"{self._url} cannot be reached: {error}; is a server running there?") from None
        if status != 200:
            raise EngineError(f"{self._url}/v1/models answered with status {status}: {error_message(body)}")
        try:
            models = {str(one["id"]): one for one in msgspec.json.decode(body)["data"]}
        except (msgspec.MsgspecError, KeyError, TypeError):
            raise EngineError(f"{self._url}/v1/models answered with no list of models: {body[:200]!r}") from None
        name = self._options.model or next(iter(models), None)
        if name is None or (models and name not in models):
            raise ConfigError(f"{self._url} serves no model {name or ''!r}; it serves {', '.join(models) or 'none'}")
        max_model_len = models.get(name, {}).get("max_model_len")
        limit = max_model_len if isinstance(max_model_len, int) else None
        return TargetInfo(name=self._url, model=name, max_model_len=limit)
