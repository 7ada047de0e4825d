"""All commands, each with the module that has it; and the options that belong to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True, slots=True)
class Command:
    """What is known of a command before its module is loaded, which costs time.

    Attributes:
        module: of `cdc.cli`.
        line: of the list of commands; its own help begins with it.
    """

    module: str
    line: str


COMMANDS = {
    "run": Command("run", "Copy what SOURCE holds into TARGET, then follow its log."),
    "status": Command("status", "Show how far TARGET is behind SOURCE, each table's state."),
    "check": Command("check", "Find everything that would stop replication from SOURCE."),
    "config": Command("config", "Check the file of settings, and show what it would do."),
    "init": Command("init", "Check SOURCE, then write a first cdc.toml with comments."),
    "verify": Command("verify", "Compare every value of every row."),
    "repair": Command("repair", "Make rows of TARGET equal to SOURCE again."),
    "resync": Command("resync", "Copy whole tables again."),
    "wait": Command("wait", "Wait until everything up to a position of SOURCE is in TARGET."),
    "query": Command("query", "Ask TARGET one question: what it holds at this moment."),
    "serve": Command("serve", "Serve a published copy to readers, read only."),
    "teardown": Command("teardown", "Remove the slot, the publications and the state."),
    "tail": Command("tail", "Print every row change of SOURCE as one line."),
    "history": Command("history", "Show every version of a row: who changed what when."),
    "as-of": Command("history", "Show the rows of a table as they were."),
    "diff": Command("history", "Show the rows of a table that were added, removed or changed."),
    "backup": Command("backup", "Copy a DuckDB file between two transactions."),
    "journal": Command("journal", "Look at a journal, check it, remove old files."),
    "rebuild": Command("rebuild", "Build a new TARGET from a journal."),
    "targets": Command("targets", "Show what each kind of target can do."),
    "demo": Command("demo", "Follow a private server under load into demo.duckdb."),
}

VERSION = "--version"
CONFIG = "--config"
LOG_FORMAT = "--log-format"
LOG_LEVEL = "--log-level"
QUIET = "--quiet"
VERBOSE = ("--verbose", "-v")

# The options that belong to all commands: how many values each takes.
_OF_ALL = {VERSION: 0, CONFIG: 1, LOG_FORMAT: 1, LOG_LEVEL: 1, QUIET: 0, **dict.fromkeys(VERBOSE, 0)}


def load_all() -> None:
    """Load the modules of all commands, so that the app has them with all of their options."""
    for command in COMMANDS.values():
        import_module(f"cdc.cli.{command.module}")


def apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that belong to all commands, with their values, and the rest, each in its order.

    They may stand before a command or after it (O38), as `--option value` or `--option=value`. What comes after `--`
    is no option.
    """
    of_all: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left and left[0] != "--":
        name, equals, _ = left[0].partition("=")
        if name not in _OF_ALL:
            rest.append(left.pop(0))
            continue
        end = 1 if equals else 1 + _OF_ALL[name]
        of_all += left[:end]
        del left[:end]
    return of_all, rest + left
