"""The files of a new plugin, as text: from the templates beside this module, filled in.

The template of a kind is the code of a package; a plugin in one file is the same code, joined.
"""

from __future__ import annotations

from functools import cached_property
from importlib.resources import files
from string import Template

from packaging.version import Version

from vcore.cli.new_plugin.kinds import KIND_TEXTS
from vcore.cli.new_plugin.names import PluginNames
from vcore.cli.new_plugin.one_file import join_modules
from vcore.plugins.hookspecs import HOOKS
from vcore.plugins.specs import SPEC_TYPES
from vcore.version import __version__

__all__ = ["PluginTemplates", "requirement"]

_FOLDER = files(__package__) / "templates"


def requirement(version: str = __version__) -> str:
    """The range of vcore that a plugin written for `version` works with: to the next major version.

    The contracts have versions of their own (`api`); the major version bounds all else.
    """
    parsed = Version(version)
    lowest = parsed.public if parsed.is_prerelease else f"{parsed.major}.{parsed.minor}"
    return f"vcore-engine>={lowest},<{parsed.major + 1}"


class PluginTemplates:
    """Fills in the templates for one plugin."""

    def __init__(self, names: PluginNames) -> None:
        """Fill in `names`."""
        self._names = names
        self._texts = KIND_TEXTS[names.kind]

    def distribution(self) -> dict[str, str]:
        """The files of a distribution, by path from its folder."""
        names, package = self._names, self._names.package
        made = {
            "pyproject.toml": self._fill("pyproject.toml"),
            "README.md": self._fill("README.md"),
            f"{package}/__init__.py": f'"""{self._summary[0].upper()}{self._summary[1:]}, for vcore."""\n',
            f"{package}/py.typed": "",
            f"{package}/plugin.py": self._registration(one_file=False),
            f"{package}/{names.kind}.py": self._fill(f"{names.kind}/code.py"),
            f"tests/test_{names.identifier}.py": self._fill(f"{names.kind}/test.py"),
        }
        if self._has_options:
            made[f"{package}/options.py"] = self._fill(f"{names.kind}/options.py")
        return made

    def one_file(self) -> str:
        """The plugin as one module."""
        kind = self._names.kind
        sources = [self._fill(f"{kind}/options.py")] if self._has_options else []
        sources += [self._fill(f"{kind}/code.py"), self._registration(one_file=True)]
        docstring = f"A plugin for vcore: {self._summary}."
        return join_modules(docstring, self._names.package, sources)

    @property
    def use(self) -> str:
        """How a user selects the plugin."""
        return Template(self._texts.use).substitute(self._values)

    @property
    def use_is_command(self) -> bool:
        """Whether `use` is arguments of ``vcore generate``."""
        return self._texts.is_command

    @property
    def _summary(self) -> str:
        return self._texts.summary

    @property
    def _has_options(self) -> bool:
        return (_FOLDER / self._names.kind / "options.py.tmpl").is_file()

    def _registration(self, *, one_file: bool) -> str:
        """The module with the hook; `load` names the class in this very module, or in the package."""
        kind, package, class_name = self._names.kind, self._names.package, self._names.class_name
        arguments = [f'name="{self._names.name}",']
        code, options = ("", "") if one_file else (f"{package}.{kind}", f"{package}.options")
        arguments.append(f'load="{code}:{class_name}",')
        arguments.append('api="1.0",')
        if self._has_options:
            arguments.append(f'options="{options}:Options",')
        arguments.append(f'summary="{self._summary}",')
        arguments += [Template(line).substitute(self._values) for line in self._texts.spec_arguments]
        return self._fill("plugin.py", arguments="\n".join(" " * 12 + line for line in arguments))

    def _fill(self, path: str, **more: str) -> str:
        text = (_FOLDER / f"{path}.tmpl").read_text(encoding="utf-8")
        return Template(text).substitute({**self._values, **more})

    @cached_property
    def _values(self) -> dict[str, str]:
        names, texts = self._names, self._texts
        spec = SPEC_TYPES[names.kind].__name__
        values = {
            "kind": names.kind.value,
            "name": names.name,
            "distribution": names.distribution,
            "package": names.package,
            "class_name": names.class_name,
            "architecture": names.class_name,
            "scheme": names.scheme,
            "summary": texts.summary,
            "requirement": requirement(),
            "spec": spec,
            "hook": next(hook for hook, kind in HOOKS.items() if kind is names.kind),
            "plugin_imports": ", ".join([spec, *texts.spec_imports, "hookimpl"]),
        }
        use = Template(texts.use).substitute(values)
        values["usage"] = f'`vcore generate "Hello" {use}`' if texts.is_command else f"{use}."
        return values
