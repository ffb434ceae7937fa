"""Executors: plugins that own the ranks. The engine reaches them through their registration, like any other plugin."""

from __future__ import annotations

__all__: list[str] = []
