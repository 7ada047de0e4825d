"""What it costs to start: CPU of what a person or a probe waits for, as a multiple of an empty interpreter's.

Of several runs in turn the least counts: what other work on the machine adds is of no command.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import orjson
from rich.console import Console

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from integration.benchmarks.measure import process_cpu, run

_CDC = (sys.executable, "-m", "cdc")
_TABLES = ("CREATE TABLE a (id int PRIMARY KEY, v varchar(20), n numeric(10,2))", "INSERT INTO a VALUES (1, 'x', 1)")
_LINE = "cdc run x --li"
_COMPLETIONS = {
    "bash": {"COMP_WORDS": _LINE.replace(" ", "\n"), "COMP_CWORD": "3"},
    "zsh": {"_TYPER_COMPLETE_ARGS": _LINE},
    "fish": {"_TYPER_COMPLETE_ARGS": _LINE, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}

Taken = Callable[[], float]  # seconds of CPU, of one run


def commands(server: PrivatePostgres, console: Console, pairs: int, _scale: float) -> None:
    """Commands that come to their end, and how long it takes until PostgreSQL's log is followed."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = server.create_database("startup"), f"duckdb:{folder}/shop.duckdb"
        for statement in _TABLES:
            server.execute(statement, "startup")
        run([*_CDC, "run", source, target, "--until-caught-up"])
        running = _running(Path(folder))
        cases: dict[str, tuple[Taken, int]] = {
            "cdc --version": (partial(_ended, "--version"), 5),
            "cdc --help": (partial(_ended, "--help"), 5),
            "cdc run --help": (partial(_ended, "run", "--help"), 8),
        }
        for shell, environment in _COMPLETIONS.items():
            asked = environment | {"_CDC_COMPLETE": f"complete_{shell}"}
            cases[f"a completion in {shell}"] = (partial(_ended, environment=asked), 5)
        cases |= {
            "cdc status, of one that runs": (partial(_ended, "status", source, running, "--name", "shop"), 13),
            "cdc status, of one that is stopped": (partial(_ended, "status", source, target), 13),
            "from start to following": (partial(_following, source, target), 20),
        }
        _race(console, cases, pairs)
        run([*_CDC, "teardown", source, target, "--yes"])
    server.execute("DROP DATABASE startup WITH (FORCE)")


def following(server: PrivateMySql, console: Console, pairs: int, _scale: float) -> None:
    """How long it takes until the log of MySQL or MariaDB is followed."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = server.create_database("startup"), f"duckdb:{folder}/shop.duckdb"
        server.execute(*_TABLES, database="startup")
        run([*_CDC, "run", source, target, "--until-caught-up"])
        _race(console, {"from start to following": (partial(_following, source, target), 20)}, pairs)
    server.execute("DROP DATABASE startup")


def _race(console: Console, cases: Mapping[str, tuple[Taken, int]], times: int) -> None:
    """Print what each takes beside an empty interpreter, in turn with it.

    Args:
        cases: how to run each once, and how many empty interpreters it may take.
    """
    took: dict[str, list[float]] = {name: [] for name in cases}
    empty = []
    for _ in range(times):
        empty.append(_cpu([sys.executable, "-c", "pass"]))
        for name, (once, _goal) in cases.items():
            took[name].append(once())
    console.print(f"an empty interpreter: {min(empty) * 1000:.0f} ms of CPU", highlight=False)
    for name, (_once, goal) in cases.items():
        cpu = min(took[name])
        console.print(
            f"{name}: {cpu / min(empty):.1f} times that (to reach: {goal}), {cpu * 1000:.0f} ms",
            highlight=False,
        )


def _running(folder: Path) -> str:
    """A target whose pipeline seems to run: this process is it."""
    said = {"pid": os.getpid(), "pipeline": "shop", "phase": "streaming", "written_at": time.time(), "tables": {}}
    (folder / "runs.duckdb.cdc.json").write_bytes(orjson.dumps(said | {"lag_bytes": 0, "lag_seconds": 0.0}))
    return f"duckdb:{folder / 'runs.duckdb'}"


def _ended(*arguments: str, environment: Mapping[str, str] | None = None) -> float:
    """Seconds that a command takes until it has ended."""
    return _cpu([*_CDC, *arguments], environment)


def _cpu(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _following(source: str, target: str) -> float:
    """Seconds that a pipeline takes, whose tables are copied, until it says that it follows the log."""
    said: list[str] = []
    with subprocess.Popen([*_CDC, "run", source, target], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "phase=streaming" in line:
                cpu = process_cpu(process.pid)
                process.terminate()
                process.communicate()
                return cpu
    sys.exit("".join(said))
