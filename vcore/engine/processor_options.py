"""`ProcessorOptions`: checks the logits processors that a request asks for against the catalog."""

from __future__ import annotations

from vcore.errors import PluginError, RequestError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import PluginKind
from vcore.sampling_params import LogitsProcessorRequest

__all__ = ["ProcessorOptions"]


class ProcessorOptions:
    """Looks names up among what is installed: a request can name a plugin, never code to import."""

    def __init__(self, catalog: Catalog) -> None:
        """Look names up in `catalog`."""
        self._catalog = catalog
        self._found: dict[str, CatalogEntry] = {}

    def check(self, asked: LogitsProcessorRequest) -> LogitsProcessorRequest:
        """The same request, with its options as the plugin's options model has them, defaults filled in.

        Raises:
            RequestError: there is no such processor, it cannot be used, or the options do not fit it.
        """
        try:
            entry = self._found.get(asked.name) or self._find(asked.name)
            options = self._catalog.parse_options(entry, asked.options)
        except PluginError as error:
            raise RequestError(f"logits_processors: {error}", param="logits_processors") from error
        return LogitsProcessorRequest(name=asked.name, options={} if options is None else options.model_dump())

    def _find(self, name: str) -> CatalogEntry:
        entry = self._catalog.find(PluginKind.LOGITS_PROCESSOR, name)
        self._catalog.load(entry)  # so that one that cannot be imported is refused here, not in a step
        self._found[name] = entry
        return entry
