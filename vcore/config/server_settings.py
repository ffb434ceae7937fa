"""`ServerSettings`: how the engine is served over HTTP, the section ``server`` of the configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_serializer, model_validator

from vcore.config.node import ConfigNode
from vcore.config.secrets import MASK, fill_references, is_reference
from vcore.errors import ConfigError

__all__ = ["ServerSettings"]

_LONGEST_S = 365 * 24 * 3600
"""A year: beyond it, and at infinity, timers have their own ideas."""

Seconds = Annotated[float, Field(gt=0.0, le=_LONGEST_S)]
Port = Annotated[int, Field(ge=0, le=65535, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]

_KEY = re.compile(r"[!-~]([ -~]*[!-~])?")
"""What comes out of a header as it went in."""


class ServerSettings(ConfigNode):
    """How the engine is served over HTTP; `vcore serve` reads it, and all else ignores it.

    So references to environment variables are filled in by `filled`, where it is served: elsewhere the variables need
    not be set.
    """

    _unread: ClassVar[frozenset[str]] = frozenset({"api_keys"})

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The address to listen on; ``0.0.0.0`` for every one of this machine."""
    port: Port = 8000
    """0 takes any free one."""
    model_names: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What clients call the model; the first one stands in answers. Empty: `model.path`."""
    api_keys: tuple[SecretStr, ...] = ()
    """If any is given, a request must bear one of them: ``Authorization: Bearer KEY``."""
    tls_cert: Path | None = None
    """A PEM file with the certificate chain; needs `tls_key`."""
    tls_key: Path | None = None
    """A PEM file with the private key."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the server from a browser; ``*`` for all."""
    max_connections: Positive = 8192
    """Most connections at a time. Beyond them the one that has been idle longest makes room; if none is idle, the new
    one is refused (503)."""
    head_timeout_s: Seconds = 20.0
    """Seconds within which a request's line and headers must have arrived, and a TLS handshake must be done."""
    keep_alive_s: Annotated[int, Field(ge=1, le=_LONGEST_S, strict=True)] = 65
    """Seconds after which a connection without another request is closed; best longer than a proxy's, so that it is
    the proxy who closes."""
    max_body_bytes: Positive = 16 * 1024 * 1024
    """Requests with a larger body are refused (413)."""
    body_timeout_s: Seconds = 60.0
    """Seconds within which a request's body must have arrived (408)."""
    max_queue: Annotated[int, Field(ge=0, strict=True)] = 4096
    """How many samples may wait beside the `scheduler.max_num_seqs` that run; more are refused (429)."""
    request_timeout_s: Seconds | None = None
    """Seconds after which a request is ended with an error (504); None: never."""
    drain_s: Annotated[float, Field(ge=0.0, le=_LONGEST_S)] = 30.0
    """After the first SIGTERM or Ctrl-C: seconds that open requests have to finish before they are ended."""
    max_engine_failures: Positive | None = 5
    """So many starts of the engine in a row that fail, or after which it soon crashes, and it is given up; None: never,
    for servers that nothing starts again."""
    exit_when_dead: bool = True
    """End with status 1 if the engine has been given up, so that whatever watches this process acts.
    Otherwise go on, and answer 503."""
    enable_profile: bool = False
    """Serve ``/start_profile`` and ``/stop_profile`` although no API key is set."""
    enable_reset: bool = False
    """Serve ``/reset_prefix_cache`` although no API key is set."""
    enable_trace: bool = False
    """Serve ``/trace`` although no API key is set."""
    enable_logits_processors: bool = False
    """Let requests name logits-processor plugins (`logits_processors`)."""
    log_requests: bool = False
    """Log a line of JSON for each request."""
    log_prompts: bool = False
    """Put prompts into these lines; needs `log_requests`."""
    otlp_traces_endpoint: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Where OpenTelemetry spans of requests go, over HTTP, such as ``http://localhost:4318/v1/traces``; needs the
    extra ``otel``."""
    chat_template: Path | None = None
    """A Jinja file to use in the place of the model's own template."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ServerSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both, or none")
        _check_keys(self.api_keys)
        if self.log_prompts and not self.log_requests:
            raise ValueError("log_prompts puts prompts into the lines of log_requests, which is off: switch it on, too")
        if "@" in urlsplit(self.otlp_traces_endpoint or "").netloc:
            raise ValueError(
                "otlp_traces_endpoint holds a user or password, which is shown in clear where the configuration is: "
                "take it out, and set OTEL_EXPORTER_OTLP_HEADERS=authorization=... in the environment"
            )
        return self

    @field_serializer("api_keys", when_used="json")
    def _mask_keys(self, keys: tuple[SecretStr, ...]) -> list[str]:
        """References may be shown, and go on working where they are read again."""
        values = (key.get_secret_value() for key in keys)
        return [value if is_reference(value) else MASK for value in values]

    def filled(self) -> ServerSettings:
        """The same with what environment variables hold in the place of ``${env:NAME}``.

        Raises:
            ConfigError: a variable is not set, or a key is none.
        """
        try:
            values = fill_references([key.get_secret_value() for key in self.api_keys], SecretStr)
            keys = tuple(map(SecretStr, values))
            _check_keys(keys)
        except ValueError as error:
            raise ConfigError(f"server.api_keys: {error}") from None
        return self.model_copy(update={"api_keys": keys})

    @property
    def guarded(self) -> bool:
        """Whether an API key is needed."""
        return bool(self.api_keys)

    @property
    def profile_allowed(self) -> bool:
        """Whether the profiling endpoints answer."""
        return self.enable_profile or self.guarded

    @property
    def reset_allowed(self) -> bool:
        """Whether ``/reset_prefix_cache`` answers."""
        return self.enable_reset or self.guarded

    @property
    def trace_allowed(self) -> bool:
        """Whether ``/trace`` answers."""
        return self.enable_trace or self.guarded


def _check_keys(keys: tuple[SecretStr, ...]) -> None:
    if any(not key.get_secret_value() for key in keys):
        raise ValueError("an API key is empty, so that anybody would have it; leave it out to need none")
    if any(_KEY.fullmatch(key.get_secret_value()) is None for key in keys):
        raise ValueError(
            "an API key can never be sent: in a header it must be ASCII, without control characters, and without "
            "white space around it, such as the line break at the end of a file that it was read from"
        )
