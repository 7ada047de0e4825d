"""All commands, one module each."""

from cdc.cli import check, demo, history, journal, rebuild, repair, resync, run, status, tail, teardown, verify

__all__ = [
    "check",
    "demo",
    "history",
    "journal",
    "rebuild",
    "repair",
    "resync",
    "run",
    "status",
    "tail",
    "teardown",
    "verify",
]
