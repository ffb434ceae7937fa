"""The resolution of ``auto``: from a configuration and a catalog to what an engine is composed from."""

from __future__ import annotations

from vcore.engine.resolve.attention import check_backend
from vcore.engine.resolve.decisions import Decision
from vcore.engine.resolve.portable import PortableReport, check_portable
from vcore.engine.resolve.resolution import Resolution
from vcore.engine.resolve.resolved_plugins import resolved_plugins
from vcore.engine.resolve.resolver import resolve

__all__ = ["Decision", "PortableReport", "Resolution", "check_backend", "check_portable", "resolve", "resolved_plugins"]
