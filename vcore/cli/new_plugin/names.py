"""`PluginNames`: what a new plugin's distribution, package, module and class are called."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass
from importlib import metadata

from vcore import interfaces
from vcore.errors import ConfigError
from vcore.plugins.spec_checks import name_faults
from vcore.plugins.specs import PluginKind

__all__ = ["PluginNames"]

_CLASS_SUFFIXES = {
    PluginKind.MODEL: "ForCausalLM",
    PluginKind.ATTENTION_BACKEND: "Backend",
    PluginKind.SCHEDULING_POLICY: "Scheduling",
    PluginKind.EVICTION_POLICY: "Eviction",
    PluginKind.ROUTING_POLICY: "Routing",
    PluginKind.WEIGHT_LOADER: "Loader",
    PluginKind.MODEL_SOURCE: "Source",
    PluginKind.EXECUTOR: "Executor",
    PluginKind.LOGITS_PROCESSOR: "Processor",
    PluginKind.OBSERVER: "Observer",
    PluginKind.TOOL_PARSER: "ToolParser",
    PluginKind.REASONING_PARSER: "ReasoningParser",
}


@dataclass(frozen=True, slots=True)
class PluginNames:
    """A plugin's name, and the names that follow from it."""

    kind: PluginKind
    name: str

    def __post_init__(self) -> None:
        faults = list(name_faults(self.name))
        if faults:
            raise ConfigError("; ".join(faults))

    @property
    def identifier(self) -> str:
        """The name as part of a Python identifier."""
        return re.sub(r"[-.]+", "_", self.name).strip("_")

    @property
    def distribution(self) -> str:
        """``vcore-NAME``, in the form that package indexes prefer."""
        plain = re.sub(r"[-_.]+", "-", self.name).strip("-")
        return plain if plain.startswith("vcore-") else f"vcore-{plain}"

    @property
    def package(self) -> str:
        """The package in it."""
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        """``NameKind``."""
        words = [word.capitalize() for word in self.identifier.split("_") if word]
        camel = "".join(words)
        suffix = _CLASS_SUFFIXES[self.kind]
        found = camel.removesuffix(suffix) + suffix
        # Neither a digit first nor the name of what it implements, such as AttentionBackend.
        return f"My{found}" if found[0].isdigit() or found in interfaces.__all__ else found

    @property
    def scheme(self) -> str:
        """The name as a URI scheme, in which an underscore may not stand."""
        return self.name.replace("_", "-")

    @property
    def file(self) -> str:
        """The one file, without its ending; not one that hides a module from programs run in its folder."""
        plain = self.identifier
        taken = keyword.iskeyword(plain) or plain in sys.stdlib_module_names or plain in ("torch", "vcore")
        return f"{plain}_plugin" if taken else plain

    def check_is_free(self) -> None:
        """Raise if a distribution, or a package, of those names is installed.

        Raises:
            ConfigError: it is.
        """
        installed = any(True for _ in metadata.distributions(name=self.distribution))
        if installed or importlib.util.find_spec(self.package) is not None:
            raise ConfigError(
                f"the plugin's distribution would be called {self.distribution!r} and its package "
                f"{self.package!r}, but one of that name is installed; choose another name, or uninstall that"
            )
