"""A command loads its own module, and no more than it needs: a person waits for that each time."""

from __future__ import annotations

import subprocess
import sys

from typer.main import get_command

from cdc.cli.app import app
from cdc.cli.commands import MODULES, load

_GROUPS = {"journal": "ls", "config": "check"}  # commands that have commands, of each one of them
LOADED = """
import sys
sys.argv = ["cdc", *sys.argv[1:]]
from cdc.cli import main
try:
    main()
finally:
    print("loaded", *sys.modules)
"""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=False)
    said, _, modules = done.stdout.rpartition("loaded ")
    assert modules, (said, done.stderr)
    return set(modules.split())


def test_every_command_is_known_by_its_module() -> None:
    """One that is not in the list could only be called by those who do not name it."""
    load([])
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) == set(MODULES)
    for name, command in commands.items():
        one = command.commands[first] if (first := _GROUPS.get(name)) is not None else command
        origin = one.callback.__module__
        assert origin == f"cdc.cli.{MODULES[name]}"


def test_a_command_loads_no_other() -> None:
    loaded = loaded_by("-v", "status", "nonsense", "x.duckdb")
    assert {name for name in loaded if name.removeprefix("cdc.cli.") in MODULES.values()} == {"cdc.cli.status"}
    # Neither other connectors nor what helps to read help.
    for module in ("cdc.targets.jsonl", "cdc.targets.kafka", "cdc.sources.mysql", "cdc.formats", "confluent_kafka"):
        assert module not in loaded, module
    for module in ("pymysql", "psycopg", "rich.markdown"):
        assert module not in loaded, module


def test_a_word_that_is_no_command_is_compared_with_all() -> None:
    assert {f"cdc.cli.{module}" for module in MODULES.values()} <= loaded_by("stats")


def test_a_run_without_a_file_loads_nothing_for_files() -> None:
    """Neither does a command that is given both ends: only who names a pipeline waits for what reads the file. (What
    typer makes values with is pydantic: it is there in any case.)"""
    for command in ("run", "status"):
        loaded = loaded_by(command, "postgresql://h:x/d", "x.duckdb")
        for module in ("tomllib", "cdc.settings.model", "cdc.settings.reading", "cdc.cli.together"):
            assert module not in loaded, module
    assert "cdc.cli.settings" not in loaded
