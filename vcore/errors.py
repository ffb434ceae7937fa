"""Every exception that vcore raises on purpose.

    VcoreError
    ├── ConfigError            the configuration is wrong, or cannot be met here
    ├── PluginError            a plugin; names kind, name, distribution, what was expected, found, and the remedy
    │   ├── PluginNotFoundError    nothing of that name or key is installed
    │   ├── PluginConflictError    several plugins answer to the key that was asked for
    │   ├── PluginBrokenError      it could not be imported, or its registration is wrong
    │   ├── PluginOptionsError     its options do not fit its schema
    │   └── PolicyError            a policy raised or answered nonsense, and `plugins.strict` is set
    ├── ModelError             a model's files
    │   ├── ModelNotFoundError     no model source can supply it
    │   ├── DownloadError          it could not be fetched whole
    │   ├── UnsupportedModelError  no plugin serves the architecture or the file's format
    │   └── WeightsError           missing, surplus, misshapen or truncated tensors
    ├── RequestError           one request is wrong; others are not affected (a ValueError)
    │   └── RequestTooLargeError   it could never fit, whatever else finishes
    ├── CapacityError          memory does not hold what was asked for
    └── EngineError            the engine failed
        └── EngineDeadError        the engine cannot go on

A message says what happened, what was found, what was expected, and what to do.
"""

from __future__ import annotations

__all__ = [
    "CapacityError",
    "ConfigError",
    "DownloadError",
    "EngineDeadError",
    "EngineError",
    "ModelError",
    "ModelNotFoundError",
    "PluginBrokenError",
    "PluginConflictError",
    "PluginError",
    "PluginNotFoundError",
    "PluginOptionsError",
    "PolicyError",
    "RequestError",
    "RequestTooLargeError",
    "UnsupportedModelError",
    "VcoreError",
    "WeightsError",
]


class VcoreError(Exception):
    """The base of all errors that vcore raises on purpose."""


class ConfigError(VcoreError, ValueError):
    """The configuration is wrong, or cannot be met on this machine."""


class PluginError(VcoreError):
    """Something about a plugin; the message names kind, name, distribution, finding and remedy."""


class PluginNotFoundError(PluginError):
    """No installed plugin answers to the name or key."""


class PluginConflictError(PluginError):
    """Several plugins answer to a key that was selected."""


class PluginBrokenError(PluginError):
    """A selected plugin cannot be imported, or its registration is wrong."""


class PluginOptionsError(PluginError, ConfigError):
    """The options given to a plugin do not fit its schema."""


class PolicyError(PluginError):
    """A policy raised or answered nonsense while `plugins.strict` is set."""


class ModelError(VcoreError):
    """Something about a model's files."""


class ModelNotFoundError(ModelError):
    """No model source can supply the model."""


class DownloadError(ModelError):
    """A model could not be fetched whole."""


class UnsupportedModelError(ModelError):
    """No plugin serves this architecture or file format."""


class WeightsError(ModelError):
    """Missing, surplus, misshapen or truncated tensors."""


class RequestError(VcoreError, ValueError):
    """One request is wrong; no other request is affected.

    `param` names the field of the request, or is None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class RequestTooLargeError(RequestError):
    """The request could never fit, whatever else finishes."""


class CapacityError(VcoreError):
    """Memory does not hold what was asked for; the message has the numbers."""


class EngineError(VcoreError):
    """The engine failed."""


class EngineDeadError(EngineError):
    """The engine cannot go on."""
