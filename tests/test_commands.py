"""A command loads its own module, and no more than it needs: a person waits for that each time."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.main import get_command

from cdc.cli.app import app
from cdc.cli.commands import COMMANDS, apart, load_all
from cdc.model.position import Checkpoint, Position
from cdc.sources.postgres.state import SourceState
from cdc.tables.control import opened
from cdc.tables.state import StateTables
from cdc.targets.duckdb.file import DuckDbFile

_GROUPS = {"journal": "ls", "config": "check"}  # commands that have commands, and one of those
LOADED = """
import sys
sys.argv = ["cdc", *sys.argv[1:]]
from cdc.cli import main
try:
    main()
finally:
    print("\\nloaded", *sys.modules)
"""

# What takes longer to load than a person wants to wait for help.
HEAVY = {"asyncio", "clickhouse_connect", "confluent_kafka", "cryptography", "duckdb", "numpy", "psycopg", "pyarrow"}
HEAVY |= {"pydantic", "pymysql", "rich.live", "rich.markdown", "sqlglot", "starlette", "tenacity", "zstandard"}


def loaded_by(*arguments: str, **environment: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"cdc {' '.join(arguments)}: {cpu:.3f} s of CPU")
    said, _, modules = done.stdout.rpartition("loaded ")
    assert modules, (said, done.stderr)
    return set(modules.split())


def test_every_command_is_known_by_its_module() -> None:
    """Who asks for a command gets the one that the list has, with the line of help that the list has."""
    load_all()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert list(commands) == list(COMMANDS)
    for name, command in commands.items():
        one = command.commands[first] if (first := _GROUPS.get(name)) is not None else command
        origin = one.callback.__module__
        assert origin == f"cdc.cli.{COMMANDS[name].module}"
        assert len(COMMANDS[name].line) <= 64, "it does not fit into a line of the list"
        assert " ".join(command.help.split()).startswith(COMMANDS[name].line.removesuffix("."))


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["status", "--help"], ["run", "--help"], ["verify", "--help"], ["journal", "ls", "-h"]],
)
def test_help_loads_nothing_that_is_heavy(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert not loaded & HEAVY
    if arguments == ["--version"]:
        assert "typer" not in loaded
    if arguments == ["--help"]:
        assert not {f"cdc.cli.{command.module}" for command in COMMANDS.values()} & loaded
        assert "rich" not in loaded


@pytest.mark.parametrize("line", ["cdc ", "cdc ru", "cdc run postgresql://h/d duckdb:", "cdc status x y --na"])
def test_a_completion_loads_nothing_that_is_heavy(line: str) -> None:
    words = line.split(" ")
    in_bash = {"_CDC_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    in_zsh = {"_CDC_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    in_fish = in_zsh | {"_CDC_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    for asked in (in_bash, in_zsh, in_fish):
        assert not loaded_by(**asked) & (HEAVY | {"rich"})


def test_status_of_a_pipeline_that_runs_opens_nothing(tmp_path: Path) -> None:
    """A probe asks every few seconds: neither DuckDB nor arrays, only what talks to the source."""
    said = {"pid": os.getpid(), "pipeline": "shop", "phase": "streaming", "written_at": time.time(), "tables": {}}
    (tmp_path / "shop.duckdb.cdc.json").write_text(json.dumps(said))
    target = f"duckdb:{tmp_path / 'shop.duckdb'}"
    loaded = loaded_by("status", "postgresql://u@127.0.0.1:1/d", target, "--name", "shop", "--json")
    assert "psycopg" in loaded
    assert not loaded & (HEAVY - {"psycopg", "asyncio"})


def test_status_of_a_pipeline_that_is_stopped_loads_duckdb_alone(tmp_path: Path) -> None:
    """It reads the checkpoint: no statement has to be made for that, and no array."""
    file = DuckDbFile(tmp_path / "shop.duckdb", 64 << 20)
    with opened(file):
        state = StateTables(file)
        state.open()
        source = SourceState(pipeline="shop", system="1", database="d", timeline=1, slot="cdc_shop")
        state.write(Checkpoint(Position(16, "0/10"), source.dump()), None)
    loaded = loaded_by("status", "postgresql://u@127.0.0.1:1/d", f"duckdb:{tmp_path / 'shop.duckdb'}", "--json")
    assert {"duckdb", "psycopg"} <= loaded
    assert not loaded & (HEAVY - {"duckdb", "psycopg", "asyncio"} | {"pandas", "rich"})


def test_a_command_loads_no_other() -> None:
    loaded = loaded_by("-v", "status", "nonsense", "x.duckdb")
    modules = {command.module for command in COMMANDS.values()}
    assert {name for name in loaded if name.removeprefix("cdc.cli.") in modules} == {"cdc.cli.status"}
    # Neither other connectors nor what helps to read help.
    for module in ("cdc.targets.jsonl", "cdc.targets.kafka", "cdc.sources.mysql", "cdc.formats", "confluent_kafka"):
        assert module not in loaded, module
    for module in ("pymysql", "psycopg", "rich.markdown"):
        assert module not in loaded, module


def test_a_word_that_is_no_command_is_compared_with_all() -> None:
    done = subprocess.run([sys.executable, "-m", "cdc", "stats"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "Error: No such command 'stats'. Did you mean 'status', 'targets'?",
        "Hint: The arguments and options: cdc --help",
    ]


@pytest.mark.parametrize(
    ("arguments", "of_all", "rest"),
    [
        ("run a b", "", "run a b"),
        ("run a b -v", "-v", "run a b"),
        ("--log-format json run a b --quiet", "--log-format json --quiet", "run a b"),
        ("run a --log-format=json b --name x", "--log-format=json", "run a b --name x"),
        ("--log-level run status a b", "--log-level run", "status a b"),  # a value that is called like a command
        ("run a b --log-level", "--log-level", "run a b"),  # a value that is missing is said by the option
        ("run a b --verbose=x", "--verbose=x", "run a b"),
        ("history t -- --quiet -v", "", "history t -- --quiet -v"),
        ("-v history t -- --log-level debug", "-v", "history t -- --log-level debug"),
        ("run a b --quietly --log-formats json", "", "run a b --quietly --log-formats json"),
        ("", "", ""),
    ],
)
def test_options_of_all_commands_stand_anywhere(arguments: str, of_all: str, rest: str) -> None:
    """O38."""
    assert apart(arguments.split()) == (of_all.split(), rest.split())


def test_a_run_without_a_file_loads_nothing_for_files() -> None:
    """Neither does a command that is given both ends: only who names a pipeline waits for what reads the file."""
    for command in ("run", "status"):
        loaded = loaded_by(command, "postgresql://h:x/d", "x.duckdb")
        for module in ("cdc.settings.model", "cdc.settings.reading", "cdc.cli.together"):
            assert module not in loaded, module
    assert "cdc.cli.settings" not in loaded
