"""`ConfigNode`: what every part of the configuration's tree is."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from vcore.config.secrets import fill_references

__all__ = ["ConfigNode"]


class ConfigNode(BaseModel):
    """The base of every part of the tree: frozen, unknown keys refused, ``${env:NAME}`` only where a secret stands."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)

    _unread: ClassVar[frozenset[str]] = frozenset()
    """Fields whose content another model checks later."""

    @field_validator("*", mode="before")
    @classmethod
    def _fill_references(cls, value: Any, info: ValidationInfo) -> Any:  # whatever the user wrote
        if info.field_name is None or info.field_name in cls._unread:
            return value
        return fill_references(value, cls.model_fields[info.field_name].annotation)
