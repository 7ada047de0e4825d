"""All commands: in which module each is, loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

# A module of a command that nobody asked for costs time: some of them need the engines of targets.
MODULES = {
    "check": "check",
    "config": "config",
    "demo": "demo",
    "history": "history",
    "init": "init",
    "as-of": "history",
    "backup": "backup",
    "diff": "history",
    "journal": "journal",
    "rebuild": "rebuild",
    "repair": "repair",
    "resync": "resync",
    "run": "run",
    "status": "status",
    "tail": "tail",
    "targets": "targets",
    "teardown": "teardown",
    "verify": "verify",
}


_OF_ALL = {"-v": 0, "--verbose": 0, "--config": 1}  # with how many values each has


def ordered(arguments: Sequence[str]) -> list[str]:
    """With what belongs to all commands before the command, after which it may stand as well (O38)."""
    first: list[str] = []
    rest = list(arguments)
    at = 0
    while at < len(rest) and rest[at] != "--":
        name, has_value, _ = rest[at].partition("=")
        if name in _OF_ALL:
            end = at + 1 + (0 if has_value else _OF_ALL[name])
            first += rest[at:end]
            del rest[at:end]
        else:
            at += 1
    return first + rest


def load(arguments: Sequence[str]) -> None:
    """Load the command that the arguments name; all of them for a list of commands, or for a word that is not one.

    A module registers its commands with the app.
    """
    values = {at + 1 for at, argument in enumerate(arguments) if _OF_ALL.get(argument)}
    words = (word for at, word in enumerate(arguments) if at not in values and not word.startswith("-"))
    word = next(words, "")
    for module in {MODULES[word]: None} if word in MODULES else dict.fromkeys(MODULES.values()):
        import_module(f"cdc.cli.{module}")
