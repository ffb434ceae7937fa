"""The socket that a server listens on, what is needed for TLS, and how many file handles there are for connections."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING

from vcore.errors import ConfigError

if TYPE_CHECKING:
    from vcore.config import ServerSettings

__all__ = ["BACKLOG", "address", "bind", "check_tls", "connections_allowed", "listen"]

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that the system keeps until they are taken."""

_MAX_FILES = 1 << 16
_SPARE_FILES = 256
"""For what is no connection: logs, the engine's process, profiles, and newcomers that take another's place."""


def connections_allowed(wanted: int) -> int:
    """How many connections there may be: `wanted`, or as many as the system gives file handles for.

    Often a process is given 1,024, and more for the asking; it asks.
    """
    files = _raise_file_limit()
    allowed = min(wanted, files - min(_SPARE_FILES, files // 2))
    if allowed < wanted:
        logger.warning(
            "at most %d connections instead of max_connections=%d, because the system gives this process %d file "
            "handles (ulimit -n)",
            allowed,
            wanted,
            files,
        )
    return allowed


def _raise_file_limit() -> int:
    """Ask for more file handles; how many there are now."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft


def check_tls(settings: ServerSettings) -> None:
    """Raise unless the files for TLS can be used, if there are to be any.

    Raises:
        ConfigError: one cannot be read, or they do not fit.
    """
    if settings.tls_cert is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=partial(_refuse_password, settings))
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"tls_cert={settings.tls_cert} and tls_key={settings.tls_key}: {error}") from error


def _refuse_password(settings: ServerSettings) -> str:
    """In the place of OpenSSL's question on the terminal, for which a server would wait for ever."""
    raise ConfigError(
        f"tls_key={settings.tls_key} is protected by a password: expected a PEM file without one, as `openssl pkey -in "
        "KEY -out NEW` makes it"
    )


def bind(settings: ServerSettings) -> socket.socket:
    """Take the address before a model is loaded for it. Nobody can connect yet.

    Raises:
        ConfigError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        listener.close()
        raise _cannot_listen(settings, error) from error
    listener.setblocking(False)
    return listener


def listen(listener: socket.socket, settings: ServerSettings) -> None:
    """Let clients connect. Of two servers that took an address while neither listened, the second one fails here.

    Raises:
        ConfigError: as `bind`.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(settings, error) from error


def _cannot_listen(settings: ServerSettings, error: Exception) -> ConfigError:
    return ConfigError(
        f"cannot listen on {settings.host} port {settings.port}: {error}. Choose another --port (0 takes any), or end "
        "what listens there"
    )


def address(listener: socket.socket, settings: ServerSettings) -> str:
    """Where clients find it, such as ``http://127.0.0.1:8000``."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{host}:{listener.getsockname()[1]}"
