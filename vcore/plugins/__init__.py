"""The plugin framework: what plugins declare, how they are found, and the catalog of what there is.

Names are loaded when first used: a plugin's registration module that imports `hookimpl` and a spec
costs milliseconds, and nothing here imports torch.
"""

from __future__ import annotations

from vcore._lazy import lazy_exports

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
        "SchedulingPolicySpec",
        "WeightLoaderSpec",
    ),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
