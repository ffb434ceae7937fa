"""The ways in: an installed entry point, a file or module without packaging, an object.

Each yields a `Registrant`: who it is, and either the plugin (module or object) or why there is none.
All that may run a stranger's code is deferred to `Registrant.open`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

from vcore.errors import ConfigError
from vcore.plugins.distributions import PluginDistribution
from vcore.plugins.entry import Origin, OriginKind

__all__ = ["OBJECT_DISTRIBUTION", "Registrant", "entry_point_registrant", "loaded_registrant", "object_registrant"]

OBJECT_DISTRIBUTION = "object"
"""What stands for the distribution of a plugin that was passed as an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registrant:
    """Something that may declare plugins."""

    distribution: str
    version: str | None
    origin: Origin
    open: Callable[[], object]
    """Imports the registration module and returns it, or returns the object. May raise anything."""


def entry_point_registrant(distribution: PluginDistribution, point: EntryPoint) -> Registrant:
    """The plugin that an installed distribution's entry point names."""
    return Registrant(
        distribution=distribution.name,
        version=distribution.version,
        origin=Origin(how=OriginKind.ENTRY_POINT, name=point.name, module=point.value.partition(":")[0].strip()),
        open=point.load,
    )


def loaded_registrant(written: str, base_dir: Path) -> Registrant:
    """The plugin that an item of ``plugins.load`` names.

    Args:
        written: ``./file.py``, or ``package.module``.
        base_dir: where relative paths start.

    Raises:
        ConfigError: it is neither a Python file that exists nor a module that can be found.
    """
    if written.endswith(".py") or written.startswith((".", "~")) or "/" in written or "\\" in written:
        return _file_registrant(written, base_dir)
    return _module_registrant(written)


def object_registrant(plugin: object) -> Registrant:
    """A plugin that was passed to `LLM`: a module, an instance, a namespace, a spec or a list of specs.

    Raises:
        ConfigError: it is a text or a path.
    """
    if isinstance(plugin, str | os.PathLike):
        raise ConfigError(
            f"plugins: found {plugin!r}, expected an object: a module, an instance with hooks, a spec or a list of "
            'specs; files and modules are named in the configuration, config={"plugins": {"load": [...]}}'
        )
    name = plugin.__name__ if isinstance(plugin, ModuleType | type) else type(plugin).__qualname__
    return Registrant(
        distribution=OBJECT_DISTRIBUTION,
        version=None,
        origin=Origin(how=OriginKind.OBJECT, name=name),
        open=lambda: plugin,
    )


def _file_registrant(written: str, base_dir: Path) -> Registrant:
    path = Path(os.path.realpath(base_dir / os.path.expanduser(written)))
    if not os.path.isfile(path):
        found = "a folder" if os.path.isdir(path) else "nothing"
        raise ConfigError(f"plugins.load: {written!r}: expected a Python file at {path}, found {found}")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"plugins.load: {written!r}: {path} cannot be read: {error}") from error
    digest = hashlib.sha256(source).hexdigest()
    identity = hashlib.sha256(f"{path}\0{digest}".encode()).hexdigest()
    module_name = f"vcore_file_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{identity[:12]}"
    return Registrant(
        distribution=path.name,
        version=None,
        origin=Origin(how=OriginKind.FILE, name=written, module=module_name, path=str(path), sha256=digest),
        open=lambda: _import_source(module_name, path, source),
    )


def _import_source(module_name: str, path: Path, source: bytes) -> ModuleType:
    """The module made of `source`: of the very bytes that were hashed, whatever the file holds by now."""
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None  # a .py path always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _module_registrant(written: str) -> Registrant:
    try:
        spec = importlib.util.find_spec(written)
    except (ImportError, ValueError, AttributeError):
        spec = None  # a parent package that is not there, or is no package
    except Exception as error:  # a parent package that raises: reported when it is opened
        return Registrant(
            distribution=written,
            version=None,
            origin=Origin(how=OriginKind.MODULE, name=written, module=written),
            open=_raiser(error),
        )
    if spec is None:
        raise ConfigError(
            f"plugins.load: no module {written!r} can be imported; expected 'package.module' on Python's path, "
            f"or a file, as './{written}.py'"
        )
    path = Path(spec.origin) if spec.has_location and spec.origin else None
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else None
    return Registrant(
        distribution=written,
        version=None,
        origin=Origin(
            how=OriginKind.MODULE,
            name=written,
            module=written,
            path=str(path) if path else None,
            sha256=digest,
        ),
        open=lambda: importlib.import_module(written),
    )


def _raiser(error: BaseException) -> Callable[[], object]:
    def open_it() -> object:
        raise error

    return open_it
