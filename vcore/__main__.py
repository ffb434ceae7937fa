"""``python -m vcore`` is the ``vcore`` command."""

from __future__ import annotations

from vcore.cli.main import main

main()
