"""`ProcessorOptions`: checks the logits processors that a request asks for, by name or by the form of its text."""

from __future__ import annotations

from typing import cast

from vcore.config import PluginChoice
from vcore.errors import PluginError, RequestError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import LogitsProcessorSpec, PluginKind
from vcore.sampling_params import LogitsProcessorRequest
from vcore.structured_output import StructuredOutput

__all__ = ["ProcessorOptions"]


class ProcessorOptions:
    """Looks names up among what is installed: a request can name a plugin, never code to import."""

    def __init__(self, catalog: Catalog, structured_output: PluginChoice | None = None, *, loads: bool = True) -> None:
        """Look names up in `catalog`.

        Args:
            catalog: what is installed.
            structured_output: which processor keeps texts to their form: `sampling.structured_output`, resolved.
            loads: whether a processor is imported when it is first asked for, so that one that cannot be is refused
                here. Not where it is to run elsewhere: it may take seconds and bring in torch.
        """
        self._catalog = catalog
        self._structured_output = structured_output
        self._loads = loads
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

    def for_structured_output(self, form: StructuredOutput) -> LogitsProcessorRequest:
        """The processor, with its options, that keeps a text to `form`.

        Raises:
            RequestError: none is configured, or it does not take this form.
        """
        choice, param = self._structured_output, f"structured_output.{form.form}"
        if choice is None:
            raise RequestError(
                "structured_output: this engine has no plugin for it (sampling.structured_output is none); "
                "name one there, or leave the request's form out",
                param=param,
            )
        try:
            entry = self._found.get(choice.name) or self._find(choice.name)
            takes = cast(LogitsProcessorSpec, entry.spec).structured_output
            if form.form not in takes:
                raise RequestError(
                    f"structured_output: {entry.title} takes {', '.join(sorted(takes)) or 'no form'}, not {form.form}",
                    param=param,
                )
            asked = form.model_dump(exclude_defaults=True)
            options = self._catalog.parse_options(entry, {**choice.options, **asked})
        except PluginError as error:
            raise RequestError(f"structured_output: {error}", param=param) from error
        return LogitsProcessorRequest(name=choice.name, options={} if options is None else options.model_dump())

    def _find(self, name: str) -> CatalogEntry:
        entry = self._catalog.find(PluginKind.LOGITS_PROCESSOR, name)
        if self._loads:
            self._catalog.load(entry)  # so that one that cannot be imported is refused here, not in a step
        self._found[name] = entry
        return entry
