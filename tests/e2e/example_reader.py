"""`Reader`: somebody who follows a page of the documentation, command by command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["INSTALL", "Reader", "commands_of", "named_blocks"]

INSTALL = ["pip", "install", "-e", ".[test]"]


def commands_of(page: str) -> list[list[str]]:
    """The command lines of a page, in their order."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", page)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line]


def named_blocks(page: str) -> list[tuple[str, str]]:
    """The blocks of code that stand under the name of their file: the names and the code."""
    return re.findall(r"(?ms)^`([\w./]+)`\n\n```\w+\n(.*?)^```", page)


@dataclass(frozen=True)
class Reader:
    """The folder of the distribution that the page is about, and where it is installed."""

    folder: Path
    site: Path

    def run(self, words: Sequence[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A command line, by this Python."""
        python = {"python": [], "vcore": ["-m", "vcore"], "pytest": ["-m", "pytest"], "pip": ["-m", "pip"]}
        command = [sys.executable, *python[words[0]], *words[1:]]
        paths = [str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=cwd or self.folder, env=env, capture_output=True, text=True, timeout=240)

    def install(self) -> subprocess.CompletedProcess[str]:
        """As the page's line, but without the network, and beside this environment instead of in it."""
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(self.site)]
        return self.run(["pip", "install", "-q", "--disable-pip-version-check", *options, "."])
