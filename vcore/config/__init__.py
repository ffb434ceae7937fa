"""The configuration: its tree, how it is loaded, and its JSON schema. Importing it imports pydantic, and no torch."""

from __future__ import annotations

from vcore.config.json_schema import schema
from vcore.config.loading import load_config, parse_set
from vcore.config.models import (
    PLUGIN_CHOICES,
    AttentionConfig,
    CacheConfig,
    ChatConfig,
    EngineConfig,
    ModelConfig,
    ObservabilityConfig,
    PluginChoice,
    PluginOptions,
    PluginsConfig,
    RuntimeConfig,
    SamplingConfig,
    SchedulerConfig,
    SimulationConfig,
)
from vcore.config.server_settings import ServerSettings
from vcore.config.show import dump

__all__ = [
    "PLUGIN_CHOICES",
    "AttentionConfig",
    "CacheConfig",
    "ChatConfig",
    "EngineConfig",
    "ModelConfig",
    "ObservabilityConfig",
    "PluginChoice",
    "PluginOptions",
    "PluginsConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "SchedulerConfig",
    "ServerSettings",
    "SimulationConfig",
    "dump",
    "load_config",
    "parse_set",
    "schema",
]
