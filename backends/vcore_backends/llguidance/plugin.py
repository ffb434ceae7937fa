"""Registers the llguidance logits processor."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import LogitsProcessorSpec, hookimpl

__all__ = ["vcore_logits_processors"]


@hookimpl
def vcore_logits_processors() -> Sequence[LogitsProcessorSpec]:
    """One processor, for requests that ask for a form of text."""
    return [
        LogitsProcessorSpec(
            name="llguidance",
            load="vcore_backends.llguidance.processor:LLGuidanceProcessor",
            api="1.0",
            options="vcore_backends.llguidance.options:LLGuidanceOptions",
            summary="keeps a text to a JSON schema, a regular expression, a choice or a grammar (llguidance)",
            rank=10,
            requires=("llguidance>=1.0",),
            structured_output=frozenset({"json_schema", "json_object", "regex", "choice", "grammar", "structural_tag"}),
        )
    ]
