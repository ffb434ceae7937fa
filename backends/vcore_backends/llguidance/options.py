"""What a request passes to the llguidance processor, and what a configuration may set for all requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vcore.config.models import PluginOptions
from vcore.structured_output import StructuralTag

__all__ = ["LLGuidanceOptions"]


class LLGuidanceOptions(PluginOptions):
    """The form of the text, as `vcore.StructuredOutput` has it, and how it is enforced. Without a form, any text."""

    json_schema: str | None = None
    """JSON text of a schema."""
    json_object: bool = False
    """Any JSON object."""
    regex: str | None = None
    """A regular expression in Rust's syntax, without look-around."""
    choice: tuple[str, ...] | None = None
    """One of these texts."""
    grammar: str | None = None
    """A grammar in llguidance's dialect of Lark, or in GBNF."""
    structural_tag: StructuralTag | None = None
    """Text with tagged parts."""
    after: str = ""
    """Text that comes before the form, after anything else."""
    max_whitespace: Annotated[int, Field(ge=0, le=1024)] = 64
    """Most characters of white space between two tokens of JSON; 0 for compact JSON. Small models tend to write
    nothing but white space where it is not bounded."""
    lenient: bool = False
    """Ignore keywords of a JSON schema that cannot be enforced, instead of refusing the schema."""
