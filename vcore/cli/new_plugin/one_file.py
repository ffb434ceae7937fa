"""`join_modules`: several small modules as one, their imports merged and sorted."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Sequence

__all__ = ["join_modules"]


def join_modules(docstring: str, package: str, sources: Sequence[str]) -> str:
    """One module of the sources' definitions, in order.

    Args:
        docstring: of the module.
        package: what is imported from it stands in the sources themselves, and is left out.
        sources: modules of a docstring, imports at the top, and definitions.
    """
    plain: set[str] = set()
    members: defaultdict[str, set[str]] = defaultdict(set)
    bodies = []
    for source in sources:
        tree = ast.parse(source)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in imports:
            names = {alias.name for alias in node.names}
            if isinstance(node, ast.Import):
                plain |= {_import_line(alias) for alias in node.names}
            elif (node.module or "").split(".")[0] != package:
                members[node.module or ""] |= names
        bodies.append(_after(source, imports))
    lines = _import_lines(plain, members)
    gap = "\n\n\n" if bodies[0].startswith(("class ", "def ", "@")) else "\n\n"
    return f'"""{docstring}"""\n\n' + "\n".join(lines) + gap + "\n\n\n".join(bodies) + "\n"


def _after(source: str, imports: Sequence[ast.stmt]) -> str:
    """What follows the imports."""
    end = max(node.end_lineno or 0 for node in imports)
    return "\n".join(source.splitlines()[end:]).strip("\n")


def _import_line(alias: ast.alias) -> str:
    return f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")


def _import_lines(plain: set[str], members: dict[str, set[str]]) -> list[str]:
    """First the standard library, then the rest; in each, ``import`` before ``from``, by module."""
    froms = {module: _from_line(module, names) for module, names in members.items()}
    sections = []
    for standard in (True, False):
        section = sorted(line for line in plain if _is_standard(line.split()[1]) is standard)
        section += [froms[module] for module in sorted(froms, key=str.lower) if _is_standard(module) is standard]
        sections.append("\n".join(section))
    return "\n\n".join(filter(None, sections)).splitlines()


def _is_standard(module: str) -> bool:
    return module.split(".")[0] in sys.stdlib_module_names


def _from_line(module: str, names: set[str]) -> str:
    """On one line if it has room there, with constants before classes before functions."""
    ordered = sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= 88:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")"
