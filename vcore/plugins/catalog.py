"""The catalog: every plugin that was found, and how one of them is chosen.

Queries never import a plugin's code and never change the catalog. Whether plugins clash is judged
only when what they clash over is asked for: an installed package that nobody selects is just a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vcore.errors import ConfigError, PluginNotFoundError
from vcore.plugins import creation
from vcore.plugins.address import Address, parse_kind
from vcore.plugins.auto_order import AutoOrder
from vcore.plugins.complaints import conflict_error, not_found_error, raise_first_unusable
from vcore.plugins.distributions import CORE_DISTRIBUTION, canonical_name
from vcore.plugins.entry import CatalogEntry, EntryStatus, OriginKind
from vcore.plugins.specs import PluginKind
from vcore.suggestions import did_you_mean

if TYPE_CHECKING:
    from vcore.config import PluginOptions

__all__ = ["LOOKUP_FIELDS", "Catalog"]

LOOKUP_FIELDS: dict[PluginKind, tuple[str, ...]] = {
    PluginKind.MODEL: ("architectures",),
    PluginKind.WEIGHT_LOADER: ("formats",),
    PluginKind.MODEL_SOURCE: ("schemes", "models"),
}
"""The fields of the spec that hold the keys of `Catalog.find_by_key`; other kinds go by their name."""


class Catalog:
    """Every plugin that was found. Only `create`, `load`, `check` and the two about options run a plugin's code."""

    def __init__(
        self, entries: Sequence[CatalogEntry], *, prefer: Sequence[str] = (), require: Sequence[str] = ()
    ) -> None:
        """
        Args:
            entries: in the order of listing.
            prefer: distributions that ``auto`` considers beside the core's own, earlier before later.
            require: distributions and ``kind/name`` addresses that `require` insists on.
        """
        self.entries = tuple(entries)
        self._order = AutoOrder(prefer)
        self._required = tuple(require)

    # Choosing by name

    def find(self, kind: PluginKind | str, address: str) -> CatalogEntry:
        """The plugin that ``NAME`` or ``NAME@DISTRIBUTION`` means.

        Raises:
            PluginNotFoundError: there is none.
            PluginConflictError: several distributions have one.
            PluginBrokenError: there is one, and it cannot be used; the cause is chained.
        """
        kind = parse_kind(kind)
        wanted = _parse(kind, address)
        named = [entry for entry in self._of(kind) if wanted.matches(entry)]
        usable = [entry for entry in named if entry.ok]
        if len(usable) == 1:
            return usable[0]
        if usable:
            names = [entry.name for entry in usable]
            raise conflict_error(kind, f"are called {wanted.name!r}", usable, names)
        raise_first_unusable(named or self._unread(wanted))
        known = sorted({entry.name for entry in self._of(kind) if entry.ok})
        raise not_found_error(kind, f"called {address!r}", wanted.name, known, self.entries, by_name=True)

    def find_by_key(self, kind: PluginKind | str, key: str, *, field: str | None = None) -> CatalogEntry:
        """The plugin that serves a key: the core's own first, then by ``plugins.prefer``, then the only one.

        Args:
            kind: the kind.
            key: an architecture, a file format, a URI scheme, a model's short name; optionally
                ``KEY@DISTRIBUTION``. For kinds without keys, the name.
            field: the one field of the spec to look at, such as ``"schemes"``; None: all of the kind's.

        Raises:
            PluginNotFoundError: nothing serves it.
            PluginConflictError: several do, and none of them comes first.
            PluginBrokenError: one does, and it cannot be used; the cause is chained.
        """
        kind = parse_kind(kind)
        wanted = _parse(kind, key)
        serving = [entry for entry in self._of(kind) if wanted.names_distribution(entry)]
        serving = [entry for entry in serving if wanted.name in _keys(entry, field)]
        foremost = self._order.foremost([entry for entry in serving if entry.ok])
        if len(foremost) == 1:
            return foremost[0]
        if foremost:
            # A loader is selected by its format, everything else by its name.
            by_key = kind is PluginKind.WEIGHT_LOADER
            names = [wanted.name if by_key else entry.name for entry in foremost]
            raise conflict_error(kind, f"serve {wanted.name!r}", foremost, names)
        raise_first_unusable(serving)
        known = sorted({one for entry in self._of(kind) if entry.ok for one in _keys(entry, field)})
        raise not_found_error(kind, f"that serves {key!r}", wanted.name, known, self.entries)

    def foremost(self, entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
        """Of `entries`, all of which serve something that is no key (a file's suffix, a pattern of names), who
        comes first, by the rules of `find_by_key`. Several are a clash, which the caller words."""
        return self._order.foremost(entries)

    def _of(self, kind: PluginKind) -> list[CatalogEntry]:
        return [entry for entry in self.entries if entry.kind is kind and entry.spec is not None]

    def _unread(self, wanted: Address) -> list[CatalogEntry]:
        """Registrations that failed before naming their plugins, and whose entry point bears the wanted name."""
        unread = [entry for entry in self.entries if entry.spec is None and entry.kind in (None, wanted.kind)]
        return [entry for entry in unread if entry.name == wanted.name and wanted.names_distribution(entry)]

    # Choosing for `auto`

    def candidates(self, kind: PluginKind | str) -> list[CatalogEntry]:
        """What ``auto`` considers, the best first: usable, of the core's own distribution or a preferred one."""
        usable = [entry for entry in self._of(parse_kind(kind)) if entry.ok]
        return self._order.sort([entry for entry in usable if self._order.considers(entry)])

    def rejected(self, kind: PluginKind | str) -> list[tuple[CatalogEntry, str]]:
        """What ``auto`` does not consider, each with the reason."""
        kind = parse_kind(kind)
        rejected = []
        for entry in (entry for entry in self.entries if entry.kind is kind):
            if not entry.ok:
                rejected.append((entry, f"{entry.status.value}: {entry.reason}"))
            elif not self._order.considers(entry):
                prefer = f", or write `plugins.prefer: [{entry.distribution}]`"
                how = "select it by name" + ("" if entry.origin.how is OriginKind.OBJECT else prefer)
                rejected.append((entry, f"`auto` considers {CORE_DISTRIBUTION} and plugins.prefer alone; {how}"))
        return rejected

    def best(self, kind: PluginKind | str, among: Sequence[CatalogEntry] | None = None) -> CatalogEntry:
        """What ``auto`` takes: the highest rank; of equal ranks the preferred distribution's.

        Args:
            kind: the kind.
            among: those of `candidates` that can do the job; None: all of them.

        Raises:
            PluginNotFoundError: there are none.
            PluginConflictError: one distribution has several of the highest rank.
        """
        kind = parse_kind(kind)
        tied = self._order.tied_for_best(self.candidates(kind) if among is None else among)
        if len(tied) == 1:
            return tied[0]
        if tied:
            raise conflict_error(kind, "tie for `auto` by rank", tied, [entry.name for entry in tied])
        reasons = "".join(f"\n  {entry.address}: {reason}" for entry, reason in self.rejected(kind))
        raise PluginNotFoundError(f"there is no {kind.value} that `auto` could take{reasons or '; none is installed'}")

    # Insisting

    def require(self) -> None:
        """Insist on ``plugins.require``, and on whatever was loaded by file, module or object.

        Raises:
            PluginNotFoundError: something required is not there.
            PluginConflictError: a required name is ambiguous.
            PluginBrokenError: it is there and cannot be used; the cause is chained.
        """
        for text in self._required:
            kind, slash, address = text.partition("/")
            if slash:
                self.find(kind, address)
            else:
                self._require_distribution(text)
        explicit = [entry for entry in self.entries if entry.origin.how is not OriginKind.ENTRY_POINT]
        hidden = (EntryStatus.HIDDEN, EntryStatus.DISABLED)
        raise_first_unusable([entry for entry in explicit if not entry.ok and entry.status not in hidden])

    def _require_distribution(self, name: str) -> None:
        owned = [entry for entry in self.entries if canonical_name(entry.distribution) == canonical_name(name)]
        if not owned:
            there = sorted({entry.distribution for entry in self.entries})
            raise PluginNotFoundError(
                f"plugins.require: no plugin of a distribution {name!r} is installed{did_you_mean(name, there)}; "
                f"`pip install {name}` (with plugins there are: {', '.join(there)})"
            )
        raise_first_unusable([entry for entry in owned if not entry.ok])

    # Using

    def load(self, entry: CatalogEntry) -> Callable[..., object]:
        """Import what the entry's spec names: a callable with the keywords ``options`` and ``context``.

        Raises:
            PluginBrokenError: it cannot be imported, is not callable, or has another signature.
        """
        return creation.load_factory(entry)

    def check(self, entry: CatalogEntry) -> None:
        """Import the entry's code and options model and check both, without creating anything.

        Raises:
            PluginBrokenError: something is wrong with them.
        """
        creation.check_loadable(entry)

    def options_model(self, entry: CatalogEntry) -> type[PluginOptions] | None:
        """The class of the plugin's options; None if it takes none.

        Raises:
            PluginBrokenError: it cannot be imported, or is of the wrong class.
        """
        return creation.load_options_model(entry)

    def parse_options(self, entry: CatalogEntry, raw: Mapping[str, Any]) -> PluginOptions | None:
        """`raw` as the plugin's own options; None if it takes none.

        Raises:
            PluginOptionsError: they do not fit its schema; a ConfigError.
            PluginBrokenError: the schema cannot be loaded.
        """
        return creation.parse_plugin_options(entry, raw)

    def create(
        self, entry: CatalogEntry, *, options: Mapping[str, Any] | PluginOptions | None = None, context: object
    ) -> object:
        """An instance of the plugin, of its kind's interface.

        Args:
            entry: what to create.
            options: raw, or as `parse_options` returned them. A logits processor is created without:
                its options model is for what requests pass.
            context: what the interface of the kind says.

        Raises:
            PluginOptionsError: the options do not fit.
            PluginBrokenError: whatever else goes wrong, chained.
            VcoreError: raised by the plugin on purpose, with a note that names it.
        """
        from vcore.config import PluginOptions

        if entry.kind is PluginKind.LOGITS_PROCESSOR:
            parsed = None
        elif isinstance(options, PluginOptions):
            parsed = options
        else:
            parsed = self.parse_options(entry, options or {})
        return creation.create_plugin(entry, options=parsed, context=context)


def _parse(kind: PluginKind, address: str) -> Address:
    try:
        return Address.parse(address, kind=kind)
    except ConfigError as error:
        raise PluginNotFoundError(f"{kind.value}: {error}") from None


def _keys(entry: CatalogEntry, field: str | None) -> list[str]:
    """What the entry can be looked up by."""
    assert entry.kind is not None
    fields = LOOKUP_FIELDS.get(entry.kind)
    if fields is None:
        return [entry.name]
    values = [getattr(entry.spec, one) for one in fields if field in (None, one)]
    return [key for value in values if isinstance(value, tuple) for key in value]
