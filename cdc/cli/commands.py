"""All commands: in which module each is, loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

# A module of a command that nobody asked for costs time: some of them need the engines of targets.
MODULES = {
    "check": "check",
    "demo": "demo",
    "history": "history",
    "as-of": "history",
    "backup": "backup",
    "diff": "history",
    "journal": "journal",
    "rebuild": "rebuild",
    "repair": "repair",
    "query": "query",
    "resync": "resync",
    "run": "run",
    "serve": "serve",
    "status": "status",
    "tail": "tail",
    "targets": "targets",
    "teardown": "teardown",
    "verify": "verify",
    "wait": "wait",
}


_OF_ALL = ("-v", "--verbose")


def ordered(arguments: Sequence[str]) -> list[str]:
    """With what belongs to all commands before the command, after which it may stand as well (O38)."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = arguments[:end], arguments[end:]
    return sorted(options, key=lambda argument: argument not in _OF_ALL) + list(rest)


def load(arguments: Sequence[str]) -> None:
    """Load the command that the arguments name; all of them for a list of commands, or for a word that is not one.

    A module registers its commands with the app.
    """
    word = next((argument for argument in arguments if not argument.startswith("-")), "")
    for module in {MODULES[word]: None} if word in MODULES else dict.fromkeys(MODULES.values()):
        import_module(f"cdc.cli.{module}")
