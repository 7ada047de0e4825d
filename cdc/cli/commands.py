"""All commands, one module each."""

from cdc.cli import demo, run, tail

__all__ = ["demo", "run", "tail"]
