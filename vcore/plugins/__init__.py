"""The plugin framework: what plugins declare, how they are found, and the catalog of what there is.

Names are loaded when first used: a plugin's registration module that imports `hookimpl` and a spec
costs milliseconds, and nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.plugins.api_versions import *  # noqa: F403
    from vcore.plugins.catalog import *  # noqa: F403
    from vcore.plugins.discovery import *  # noqa: F403
    from vcore.plugins.entry import *  # noqa: F403
    from vcore.plugins.hookspecs import *  # noqa: F403
    from vcore.plugins.resolved import *  # noqa: F403
    from vcore.plugins.specs import *  # noqa: F403

_EXPORTS = {
    "api_versions": ("SERVED_APIS", "ApiVersion", "ServedApi"),
    "catalog": ("Catalog",),
    "discovery": ("discover",),
    "entry": ("CatalogEntry", "EntryStatus", "Origin"),
    "hookspecs": ("ENTRY_POINT_GROUP", "HOOKS", "PROJECT_NAME", "hookimpl", "hookspec"),
    "resolved": ("ResolvedPlugin", "ResolvedSet"),
    "specs": (
        "SPEC_TYPES",
        "AttentionBackendSpec",
        "AttentionCapabilities",
        "EvictionPolicySpec",
        "ExecutorSpec",
        "LogitsProcessorSpec",
        "ModelSourceSpec",
        "ModelSpec",
        "ObserverSpec",
        "PluginKind",
        "PluginSpec",
        "ReasoningParserSpec",
        "RoutingPolicySpec",
        "SchedulingPolicySpec",
        "ToolParserSpec",
        "WeightLoaderSpec",
    ),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
