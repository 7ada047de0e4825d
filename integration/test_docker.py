"""What `docker/` has, as far as it can be run without Docker."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Database, MySqlDatabase
from integration.processes import Process, cdc, start

DOCKER = Path(__file__).parent.parent / "docker"


def entrypoint(folder: Path, program: str, *arguments: str) -> subprocess.Popen[str]:
    """The image's entrypoint over a program in the place of `cdc`."""
    fake = folder / "cdc"
    fake.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{program}\n")
    fake.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "CDC_RESTART_AFTER": "0.1"}
    return subprocess.Popen([DOCKER / "entrypoint.sh", *arguments], env=environment, text=True)


def runs(folder: Path) -> int:
    """How often the program was started."""
    file = folder / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize(
    ("program", "arguments", "code", "times"),
    [
        ("[ $(wc -l < {0}/runs) -ge 3 ] && exit 0; exit 1", ("run",), 0, 3),
        ("[ $(wc -l < {0}/runs) -ge 2 ] && exit 3; exit 1", ("run",), 3, 2),
        ("exit 2", ("run",), 2, 1),
        ("exit 3", ("run",), 3, 1),
        ("exit 1", ("verify",), 1, 1),
    ],
)
def test_what_is_restarted(tmp_path: Path, program: str, arguments: tuple[str, ...], code: int, times: int) -> None:
    """O47: a run that ends with 1, and nothing else."""
    assert entrypoint(tmp_path, program.format(tmp_path), *arguments).wait(20) == code
    assert runs(tmp_path) == times


def test_a_signal_reaches_the_run(tmp_path: Path) -> None:
    """O47: `docker stop` ends it in order, whatever its code is then."""
    program = f"trap 'kill $!; sleep 0.2; echo ended >> {tmp_path}/ended; exit 1' TERM; sleep 60 & wait"
    running = entrypoint(tmp_path, program, "run")
    wait_for(lambda: runs(tmp_path) == 1)
    time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 1
    assert (tmp_path / "ended").read_text() == "ended\n"
    assert runs(tmp_path) == 1


def test_the_role_of_compose(database: Database, tmp_path: Path) -> None:
    """O47: a run by a role of its own, no superuser, which waits until the application has made its tables."""
    psql = database.server.binaries
    environment = {
        "PATH": f"{psql}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database.server.port),
        "PGPASSWORD": database.server.password,
        "POSTGRES_DB": database.name,
        "CDC_PASSWORD": "it's",
    }
    subprocess.run([DOCKER / "role.sh"], env=environment, check=True)
    target = tmp_path / "shop.duckdb"
    try:
        assert database.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'cdc'") == [(False,)]
        running = start(
            "run", database.dsn.replace("postgres@", "cdc@"), str(target), "--wait-for-tables", PGPASSWORD="it's"
        )
        follows(running, target, lambda: database.execute("SET ROLE owner; CREATE TABLE t (id int PRIMARY KEY)"))
    finally:
        database.execute("DROP OWNED BY cdc, owner CASCADE; DROP ROLE cdc, owner")


def test_waiting_for_tables_of_a_pattern(my: MySqlDatabase, tmp_path: Path) -> None:
    """O47: where there are others already; without the option it is refused at once."""
    my.execute("CREATE TABLE other (id int PRIMARY KEY)")
    target = tmp_path / "shop.duckdb"
    command = ("run", my.dsn, str(target), "--tables", "t")
    assert cdc(*command).returncode == 2
    running = start(*command, "--wait-for-tables")
    follows(running, target, lambda: my.execute("CREATE TABLE t (id int PRIMARY KEY)"))


def follows(running: Process, target: Path, make: Callable[[], object]) -> None:
    """A run waits, follows once there are tables, and ends in order."""
    status = target.with_name(target.name + ".cdc.json")
    try:
        wait_for(lambda: status.exists() and b'"phase":"waiting"' in status.read_bytes())
        make()
        wait_for(lambda: b'"phase":"streaming"' in status.read_bytes())
    finally:
        running.terminate()
        assert running.wait(20) == 0


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
