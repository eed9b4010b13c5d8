"""The `dragonfly` command."""

from __future__ import annotations


def main() -> None:
    """Entry point. Ray is imported by the commands, not by `--help`."""
    from dragonfly_ray.cli.app import run

    run()
