"""Which attention backends can be timed here, each with its options, and what speaks against the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from vcore.bench.kernel_layers import TimedLayer
from vcore.config import EngineConfig
from vcore.engine.resolve import check_backend
from vcore.engine.resolve.attention import resolve_block_size
from vcore.engine.resolve.lookup import selector
from vcore.engine.resolve.machine import compute_capability
from vcore.errors import PluginBrokenError, PluginError
from vcore.interfaces.attention import AttentionBackend, AttentionBackendContext
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import AttentionBackendSpec, AttentionCapabilities, PluginKind

__all__ = ["KernelBackends", "NamedBackend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedBackend:
    """A backend that is to be timed."""

    name: str
    """As a configuration selects it."""
    entry: CatalogEntry
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def capabilities(self) -> AttentionCapabilities:
        """What its spec lists."""
        return cast(AttentionBackendSpec, self.entry.spec).capabilities


class KernelBackends:
    """The backends that were asked for, or all that are installed, the highest rank first."""

    def __init__(self, catalog: Catalog, config: EngineConfig, names: Sequence[str]) -> None:
        """Look them up.

        Args:
            catalog: every plugin there is.
            config: options of the backend that it names as ``attention.backend`` are used for that backend.
            names: ``NAME`` or ``NAME@DISTRIBUTION``, each once; none for all.

        Raises:
            PluginNotFoundError: there is no backend of that name.
            PluginConflictError: several have it.
        """
        self.unusable: list[dict[str, Any]] = []
        """What cannot be timed: ``backend`` and ``reasons``, a list of texts."""
        self._catalog = catalog
        self._config = config
        entries = self._named(names) if names else self._installed()
        choice = config.attention.backend
        chosen = None if choice.is_auto else catalog.find(PluginKind.ATTENTION_BACKEND, choice.name)
        self.named = [
            NamedBackend(
                name=selector(catalog, entry),
                entry=entry,
                options=dict(choice.options) if entry is chosen else {},
            )
            for entry in entries
        ]

    def _named(self, names: Sequence[str]) -> list[CatalogEntry]:
        entries = []
        for name in dict.fromkeys(names):
            try:
                entries.append(self._catalog.find(PluginKind.ATTENTION_BACKEND, name))
            except PluginBrokenError as error:
                self.refuse(name, self._faults(name) or [str(error)])
        return entries

    def _faults(self, name: str) -> list[str]:
        """Of the backends of that name, what keeps them from being used."""
        kind, bare = PluginKind.ATTENTION_BACKEND, name.partition("@")[0]
        return [_fault(entry) for entry in self._catalog.entries if (entry.kind, entry.name) == (kind, bare)]

    def _installed(self) -> list[CatalogEntry]:
        found = [entry for entry in self._catalog.entries if entry.kind is PluginKind.ATTENTION_BACKEND]
        for entry in found:
            if not entry.ok:
                self.refuse(entry.name, [_fault(entry)])
        usable = [entry for entry in found if entry.ok]
        return sorted(usable, key=lambda entry: -cast(AttentionBackendSpec, entry.spec).rank)

    def refuse(self, name: str, reasons: Sequence[str]) -> None:
        """Note what speaks against a backend, once."""
        row = {"backend": name, "reasons": list(reasons)}
        if row not in self.unusable:
            self.unusable.append(row)

    def serves(self, backend: NamedBackend, layer: TimedLayer, context: AttentionBackendContext) -> bool:
        """Whether `backend` can compute `layer`; if not, its reasons are noted."""
        reasons = check_backend(
            backend.capabilities,
            device=context.device,
            dtype=context.dtype,
            head_dims=layer.head_dims,
            block_size=context.block_size,
            features=layer.features,
            compute_capability=compute_capability(context.device),
        ) or self._own_reasons(backend, layer, context)
        if reasons:
            self.refuse(backend.name, reasons)
        return not reasons

    def _own_reasons(self, backend: NamedBackend, layer: TimedLayer, context: AttentionBackendContext) -> list[str]:
        """What the plugin's code says; it is imported for that. That it fails is a reason too."""
        try:
            factory = self._catalog.load(backend.entry)
            if isinstance(factory, type) and issubclass(factory, AttentionBackend):
                return list(layer.own_reasons(factory, context))
        except PluginError as error:
            return [str(error)]
        except Exception as error:  # the plugin's own, whatever it is
            return [f"it raised {type(error).__name__} when asked for reasons against it: {error}"]
        return []

    def create(self, backend: NamedBackend, context: AttentionBackendContext) -> AttentionBackend:
        """An instance for one case.

        Raises:
            PluginError: it cannot be made, or not with these options.
        """
        made = self._catalog.create(backend.entry, options=backend.options, context=context)
        assert isinstance(made, AttentionBackend)  # `create` has seen to it
        return made

    def block_size(self, backend: NamedBackend, wanted: int | None) -> int:
        """`wanted`, or what an engine would take with this backend."""
        return resolve_block_size("auto" if wanted is None else wanted, backend.capabilities)[0]


def _fault(entry: CatalogEntry) -> str:
    return f"{entry.status.value}: {entry.reason}"
