"""Lazy strings: ``"package.module:Attribute"``, imported only when what they name is needed."""

from __future__ import annotations

import importlib
import re
import sys

__all__ = ["check_lazy_string", "load_lazy_string"]

_FORM = re.compile(r"(?:[^\W\d]\w*(?:\.[^\W\d]\w*)*)?:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def check_lazy_string(text: str, *, own_module: bool) -> str | None:
    """What is wrong with `text`, or None.

    Args:
        text: the lazy string.
        own_module: whether ``":Attribute"`` may stand for the registration module itself.
    """
    if _FORM.fullmatch(text) is None or (text.startswith(":") and not own_module):
        return f"{text!r} is not of the form 'package.module:Attribute'"
    return None


def load_lazy_string(text: str, *, home: str | None = None, home_alias: str | None = None) -> object:
    """Import what `text` names.

    Args:
        text: ``"module:Attribute"``, or ``":Attribute"`` for an attribute of `home`.
        home: the registration module, as `sys.modules` has it.
        home_alias: another name by which `text` may call `home`: a file's stem, since a file that is
            loaded by path is not importable under it.

    Raises:
        AttributeError: the module has no such attribute.
        Exception: whatever importing the module raised.
    """
    module_name, _, attribute = text.partition(":")
    if home is not None and module_name in ("", home_alias):
        found: object = sys.modules[home]
    else:
        found = importlib.import_module(module_name)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found
