"""``vcore plugins new``: the starting point of a plugin, from templates that are real code of each kind."""

from __future__ import annotations

from vcore.cli.new_plugin.command import new

__all__ = ["new"]
