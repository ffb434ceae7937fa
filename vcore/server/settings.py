"""`ServerSettings`: how the engine is served over HTTP. What the engine itself does stands in `EngineConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, model_validator

from vcore.config.models import ConfigNode
from vcore.errors import ConfigError

__all__ = ["ServerSettings", "settings_from"]


class ServerSettings(ConfigNode):
    """How the engine is served over HTTP. Unknown keys are refused, secrets masked and filled by ``${env:NAME}``."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The address to listen on; ``0.0.0.0`` for every one of this machine."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
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
    max_body_bytes: Annotated[int, Field(ge=1)] = 16 * 1024 * 1024
    """Requests with a larger body are refused (413)."""
    max_queue: Annotated[int, Field(ge=0)] = 4096
    """How many samples may wait beside the `scheduler.max_num_seqs` that run; more are refused (429)."""
    body_timeout_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Seconds within which a request's body must have arrived (408)."""
    request_timeout_s: Annotated[float, Field(gt=0.0)] | None = None
    """Seconds after which a request is ended with an error (504); None: never."""
    drain_s: Annotated[float, Field(ge=0.0)] = 30.0
    """After the first SIGTERM or Ctrl-C: seconds that open requests have to finish before they are ended."""
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
    """Put prompts into these lines."""
    otlp_traces_endpoint: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Where OpenTelemetry spans of requests go, over HTTP, such as ``http://localhost:4318/v1/traces``; needs the
    extra ``otel``."""
    chat_template: Path | None = None
    """A Jinja file to use in the place of the model's own template."""

    @model_validator(mode="after")
    def _tls_needs_both(self) -> ServerSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both, or none")
        if any(not key.get_secret_value() for key in self.api_keys):
            raise ValueError("an API key is empty, so that anybody would have it; leave it out to need none")
        return self

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


def settings_from(values: Mapping[str, Any]) -> ServerSettings:
    """Settings of values that a user wrote.

    Raises:
        ConfigError: one is unknown or out of range, or two contradict each other. Secrets are not shown.
    """
    try:
        return ServerSettings(**values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name}: {message}" if name else message) from None
