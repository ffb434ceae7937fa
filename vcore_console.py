"""The ``vcore`` command. It lives outside the package so that it can tell when another `vcore` has replaced ours."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from vcore.cli.main import main as run

    run()
