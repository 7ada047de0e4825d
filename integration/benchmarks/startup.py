"""What it costs to start: CPU of commands that a person or a probe waits for, as a multiple of an empty interpreter's."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
from rich.console import Console

from cdc.demo.server import PrivatePostgres


def commands(server: PrivatePostgres, console: Console, pairs: int, _scale: float) -> None:
    """Each is run several times, of which the least counts."""
    with tempfile.TemporaryDirectory() as folder:
        target = _running(Path(folder))
        asked = {"_CDC_COMPLETE": "complete_bash", "COMP_WORDS": "cdc\nrun\nx\nduckdb:\n", "COMP_CWORD": "3"}
        command = [sys.executable, "-m", "cdc"]
        status = [*command, "status", server.create_database("startup"), target, "--name", "shop"]
        cases: dict[str, tuple[Sequence[str], dict[str, str]]] = {
            "cdc --version": ([*command, "--version"], {}),
            "cdc --help": ([*command, "--help"], {}),
            "a completion": (command, asked),
            "cdc run --help": ([*command, "run", "--help"], {}),
            "cdc status, of one that runs": (status, {}),
        }
        empty = _cpu([sys.executable, "-c", "pass"], {}, pairs)
        console.print(f"an empty interpreter: {empty * 1000:.0f} ms of CPU", highlight=False)
        for name, (arguments, environment) in cases.items():
            cpu = _cpu(arguments, environment, pairs)
            console.print(f"{name}: {cpu / empty:.1f} times that, {cpu * 1000:.0f} ms", highlight=False)


def _running(folder: Path) -> str:
    """A target whose pipeline seems to run: this process is it."""
    said = {"pid": os.getpid(), "pipeline": "shop", "phase": "streaming", "written_at": time.time(), "tables": {}}
    (folder / "shop.duckdb.cdc.json").write_bytes(orjson.dumps(said | {"lag_bytes": 0, "lag_seconds": 0.0}))
    return f"duckdb:{folder / 'shop.duckdb'}"


def _cpu(arguments: Sequence[str], environment: dict[str, str], times: int) -> float:
    """Seconds that it takes, the least of several."""
    return min(_once(arguments, environment) for _ in range(times))


def _once(arguments: Sequence[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, env=os.environ | environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
