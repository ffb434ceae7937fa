"""The options that most commands have, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Config", "Json", "Model", "Plugins", "Set"]

Model = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="Model name, folder or file; smollm2-135m if none.")
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Such as cache.block_size=32.")]
Plugins = Annotated[list[str] | None, typer.Option("-p", metavar="PLUGIN", help="File or module, or no:NAME.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
