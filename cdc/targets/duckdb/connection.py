"""Opening a DuckDB file, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from cdc.errors import CdcError, InvariantError, TargetBusy, TargetDrift, TargetFull, UsageError
from cdc.targets.duckdb.sql import CATALOG

_LOCKED = re.compile(r"could not set lock|conflicting lock|already open", re.IGNORECASE)
_FULL = re.compile(r"no space left|disk full|file too large|disk quota|max_temp_directory_size", re.IGNORECASE)
_FORBIDDEN = re.compile(r"permission denied|read-only file system|cannot open file", re.IGNORECASE)
_FOREIGN = re.compile(r"not a valid duckdb database|newer version|older version|storage version", re.IGNORECASE)
_STARVED = re.compile(r"could not allocate block|failed to (allocate|pin|offload)", re.IGNORECASE)  # in a commit
_HOLDER = re.compile(r"PID (\d+)")


def open_file(path: Path, memory: int, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open (or make) a file, with values read and written in UTC and no more than `memory` bytes of buffers.

    Raises:
        TargetBusy: another process has it open.
        UsageError: it is not a DuckDB file, or the folder cannot be written to.
    """
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Make it, or name a file in a folder that exists.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a DuckDB file.")
    if not read_only and not path.exists() and not os.access(folder, os.W_OK):
        raise UsageError(f"The folder {folder} cannot be written to.", hint="Choose another place for the target.")
    with mapped_errors(path):
        # Attached under a name of our own: otherwise it has that of the file, and if a schema in it has the same one,
        # every name is ambiguous.
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory >> 20}MB",
            "temp_directory": f"{path}.tmp",
        }
        connection = duckdb.connect(":memory:", config=settings)
        file = str(path).replace("'", "''")
        try:
            connection.execute(f"ATTACH '{file}' AS {CATALOG}{' (READ_ONLY)' if read_only else ''}")
        except duckdb.Error:
            connection.close()
            raise
        connection.execute(f"USE {CATALOG}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
        if not read_only:
            connection.execute("SET checkpoint_threshold = '64MB'")  # of DuckDB's own WAL (D-11)
    return connection


def limit_memory(connection: duckdb.DuckDBPyConnection, memory: int) -> None:
    """Change how many bytes of buffers there may be."""
    connection.execute(f"SET memory_limit = '{memory >> 20}MB'")


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Turn DuckDB's exceptions into ours. Their texts may hold values of rows, so most of them are not passed on."""
    try:
        yield
    except duckdb.Error as error:
        raise classify(error, path) from error
    except UnicodeDecodeError as error:  # DuckDB quotes the value that it refuses, whatever bytes it has
        raise InvariantError(
            f"DuckDB refused a value for {path} that is not valid UTF-8.",
            hint="Nothing was applied. The source, or something between, sent damaged text.",
        ) from error


def classify(error: duckdb.Error, path: Path) -> CdcError:
    """Decide what a DuckDB error means for a pipeline."""
    text = str(error)
    if _LOCKED.search(text):
        holder = _HOLDER.search(text)
        who = f" (PID {holder[1]})" if holder else ""
        return TargetBusy(
            f"{path} is open in another process{who}.",
            hint="DuckDB lets one process write a file at a time: stop the other one, or let it disconnect.",
        )
    if _FULL.search(text):
        return TargetFull(
            f"There is no space left for {path} or its temporary files.",
            hint="Free some space and start again: nothing was lost, the last segment was rolled back.",
        )
    if _FOREIGN.search(text):
        return UsageError(f"{path} is not a DuckDB file that this DuckDB can open.", hint="Name another file.")
    if _FORBIDDEN.search(text):
        return UsageError(
            f"{path} cannot be opened for writing.", hint="Check the file's and the folder's permissions."
        )
    if isinstance(error, duckdb.OutOfMemoryException) or _STARVED.search(text):
        # Not tried again: the same rows would need as much again.
        return TargetFull(
            f"{path}: DuckDB ran out of memory; the segment was rolled back.", hint="Give it more with --memory."
        )
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return TargetDrift(
            f"{path} does not hold the tables as this pipeline left them ({type(error).__name__}).",
            hint="Undo what was changed by hand, or remove the target and start again.",
        )
    return InvariantError(
        f"DuckDB refused a statement on {path} ({type(error).__name__}).",
        hint="Nothing was applied. Please report this with the version of duckdb.",
    )
