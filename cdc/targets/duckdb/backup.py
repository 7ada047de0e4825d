"""A copy of a target's file, made while nothing is applied."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb

from cdc.errors import OperatorNeeded, Unavailable, UsageError
from cdc.files.durable import sync_folder
from cdc.targets.duckdb.connection import mapped_errors

_SIGN_EVERY = 0.5  # seconds


def wal_of(file: Path) -> Path:
    """The log of DuckDB's own that belongs to a file."""
    return file.with_name(f"{file.name}.wal")


def settle(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Put everything into the file itself, so that a copy of that one is whole.

    Raises:
        Unavailable: another transaction is open in this process.
    """
    with mapped_errors(file):
        try:
            connection.execute("CHECKPOINT")
        except duckdb.TransactionException as error:
            raise Unavailable(f"{file} cannot be copied just now: somebody is changing it.") from error
    wal = wal_of(file)
    if wal.exists() and wal.stat().st_size:
        raise Unavailable(f"{file} cannot be copied just now: a part of it is in {wal}.")


def refuse_place(file: Path, to: Path) -> None:
    """Raise UsageError where no copy of a file can go."""
    if not to.parent.is_dir():
        raise UsageError(f"There is no folder {to.parent}.", hint="Make it, or name a file in a folder that exists.")
    if to.is_dir():
        raise UsageError(f"{to} is a folder.", hint=f"Name a file: {to / file.name}")
    if to.resolve() == file.resolve() or (to.exists() and file.exists() and os.path.samefile(file, to)):
        raise UsageError(f"{to} is the target itself.", hint="Name another file.")
    if (wal := wal_of(to)).exists():
        raise UsageError(
            f"{wal} is there, and DuckDB would apply its content to the copy.",
            hint="A process has the earlier copy open, or did not close it. Name another file, or remove this one.",
        )


def back_up(connection: duckdb.DuckDBPyConnection, file: Path, to: Path, alive: Callable[[], None]) -> None:
    """Make a durable copy of an open file in which nothing is being done, in one step.

    Args:
        alive: called again and again while the copy is made.
    """
    refuse_place(file, to)
    settle(connection, file)
    new = to.with_name(f"{to.name}.new")
    new.unlink(missing_ok=True)
    # By another process: the lock on the file would be gone as soon as this one closed the file that it reads
    # (fcntl(2): a process's locks end when it closes any descriptor of the file).
    with subprocess.Popen(
        ["cp", "--", str(file), str(new)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as copying:
        while True:
            try:
                _, said = copying.communicate(timeout=_SIGN_EVERY)
                break
            except subprocess.TimeoutExpired:
                alive()
    if copying.returncode != 0:
        new.unlink(missing_ok=True)
        raise OperatorNeeded(f"{file} could not be copied: {said.strip()}.", hint="The target itself was not changed.")
    with new.open("rb") as copy:
        os.fsync(copy.fileno())
    new.replace(to)
    sync_folder(to.parent)
