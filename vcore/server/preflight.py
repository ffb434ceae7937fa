"""What of a server's configuration can be found wrong before a model is loaded for it, which may take minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vcore.plugins.discovery import discover
from vcore.server.chat_template_file import read_chat_template
from vcore.server.listener import check_tls
from vcore.server.observability.spans import check_otlp
from vcore.server.tool_calls import choose_chat_format

if TYPE_CHECKING:
    from vcore.config import EngineConfig, ServerSettings

__all__ = ["check_parsers", "check_settings"]


def check_settings(settings: ServerSettings) -> None:
    """That what `settings` name is there and can be used. The address is another matter: see `bind`.

    Raises:
        ConfigError: a variable of the environment is not set, a file cannot be used, or an extra is not installed.
    """
    settings.filled()
    check_tls(settings)
    if settings.chat_template is not None:
        read_chat_template(settings.chat_template)
    if settings.otlp_traces_endpoint is not None:
        check_otlp(settings.otlp_traces_endpoint)


def check_parsers(config: EngineConfig, base_dir: Path | None) -> None:
    """That the parsers of conversations which `config` names can be used. Those that are ``auto`` go by the template.

    Args:
        config: of the engine.
        base_dir: what its relative paths are relative to; None for the working directory.

    Raises:
        PluginError: one is missing, broken or ambiguous, or its options do not fit.
        ConfigError: as `vcore.plugins.discover`.
    """
    chat = config.chat
    if any(choice is not None and not choice.is_auto for choice in (chat.tool_parser, chat.reasoning_parser)):
        choose_chat_format(chat, discover(config.plugins, base_dir=base_dir), None)
