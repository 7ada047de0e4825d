"""All commands, one module each."""

from cdc.cli import check, demo, run, status, tail, teardown

__all__ = ["check", "demo", "run", "status", "tail", "teardown"]
