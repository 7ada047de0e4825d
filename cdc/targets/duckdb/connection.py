"""Opening a DuckDB file, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from cdc.errors import (
    CdcError,
    DiskFailed,
    InvariantError,
    OperatorNeeded,
    TargetBusy,
    TargetDamaged,
    TargetDrift,
    TargetFull,
    UsageError,
)
from cdc.files.disk import meaning
from cdc.tables.names import CATALOG

_LOCKED = re.compile(r"could not set lock|conflicting lock|already open", re.IGNORECASE)
_FULL = re.compile(r"no space left|disk full|file too large|disk quota|max_temp_directory_size", re.IGNORECASE)
_FORBIDDEN = re.compile(r"permission denied|read-only file system|cannot open file", re.IGNORECASE)
_FOREIGN = re.compile(r"not a valid duckdb database|newer version|older version|storage version", re.IGNORECASE)
_NEWER = re.compile(r"created with an? newer version of duckdb", re.IGNORECASE)
_OTHER_WAL = re.compile(
    r"wal (checkpoint iteration|database identifier|was created for)|wal was created for", re.IGNORECASE
)
_STARVED = re.compile(r"could not allocate block|failed to (allocate|pin|offload)", re.IGNORECASE)  # in a commit
_DAMAGED = re.compile(r"corrupt|checksum|failed to deserialize|could not read enough bytes", re.IGNORECASE)
_BROKEN = re.compile(r"could not (write|read|fsync|truncate|seek)|fsync failed|input/output error", re.IGNORECASE)
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
        # By its whole path and its type: what looks like `sqlite:x.db`, or is another engine's, would be that to it.
        file = str(path.absolute()).replace("'", "''")
        is_new = not path.exists()
        try:
            connection.execute(f"ATTACH '{file}' AS {CATALOG} (TYPE duckdb{', READ_ONLY' if read_only else ''})")
        except duckdb.Error as error:
            connection.close()
            if is_new and not _LOCKED.search(str(error)):
                path.unlink(missing_ok=True)  # what a full disk has left of it is no DuckDB file
            raise
        connection.execute(f"USE {CATALOG}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
        if not read_only:
            connection.execute("SET checkpoint_threshold = '64MB'")  # of DuckDB's own WAL (D-11)
            # Keys of one join by which it leaves out row groups; with more than 50 it reads the whole column otherwise.
            connection.execute("SET dynamic_or_filter_threshold = 1000")
    return connection


def limit_memory(connection: duckdb.DuckDBPyConnection, memory: int) -> None:
    """Change how many bytes of buffers there may be."""
    connection.execute(f"SET memory_limit = '{memory >> 20}MB'")


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Turn DuckDB's exceptions into ours. Their texts may hold values of rows, so most of them are not passed on."""
    try:
        yield
    except (duckdb.Error, UnicodeDecodeError, OSError) as error:
        raise classify(error, path) from error


def classify(error: Exception, path: Path) -> CdcError:
    """Decide what an error of DuckDB, or of the folder of its file, means for a pipeline."""
    if isinstance(error, UnicodeDecodeError):  # DuckDB quotes the value that it refuses, whatever bytes it has
        return InvariantError(
            f"DuckDB refused a value for {path} that is not valid UTF-8.",
            hint="Nothing was applied. The source, or something between, sent damaged text.",
        )
    if isinstance(error, OSError):  # of the folder: those of files are DuckDB's
        return meaning(error, str(path))
    text = str(error)
    if _LOCKED.search(text):
        holder = _HOLDER.search(text)
        who = f" (PID {holder[1]})" if holder else ""
        return TargetBusy(
            f"{path} is open in another process{who}.",
            hint="DuckDB lets only one process open a file for writing: stop the other process, or let it disconnect.",
        )
    if _FULL.search(text):
        return TargetFull(
            f"There is no space left for {path} or its temporary files.",
            hint="Free some space and start again: nothing was lost, the last segment was rolled back.",
        )
    if _DAMAGED.search(text):
        return TargetDamaged(
            f"{path} is damaged: DuckDB does not read from the disk what it has written.",
            hint=f"Put a backup in its place, and remove {path}.wal. `cdc run SOURCE TARGET` then says whether the "
            "source still has the log since that backup. Without a backup, build the target again from a journal; or "
            "move the file away, run `cdc teardown SOURCE --name NAME`, and start again.",
        )
    if _OTHER_WAL.search(text):
        return OperatorNeeded(
            f"{path}.wal does not belong to {path}: the two files are not of one copy.",
            hint=f"Put back both files of one copy. A copy of `cdc backup` has no .wal: then remove {path}.wal.",
        )
    if _NEWER.search(text):
        return UsageError(
            f"{path} was made by a newer DuckDB than the one that is installed ({duckdb.__version__}).",
            hint="Install that one, or a newer one: pip install --upgrade duckdb",
        )
    if _FOREIGN.search(text):
        return UsageError(f"{path} is not a DuckDB file that this DuckDB can open.", hint="Name another file.")
    if _FORBIDDEN.search(text):
        return UsageError(
            f"{path} cannot be opened for writing.", hint="Check the file's and the folder's permissions."
        )
    if isinstance(error, duckdb.IOException) or _BROKEN.search(text):
        return DiskFailed(
            f"DuckDB cannot read or write {path} or its temporary files.",
            hint="Look at its disk and at the system's log, and start again: nothing was lost, the last segment was "
            "rolled back.",
        )
    if isinstance(error, duckdb.OutOfMemoryException) or _STARVED.search(text):
        # Not tried again: the same rows would need as much again.
        return TargetFull(
            f"{path}: DuckDB ran out of memory; the segment was rolled back.", hint="Give it more with --memory."
        )
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return TargetDrift(
            f"{path} does not hold the tables as this pipeline left them ({type(error).__name__}).",
            hint="Undo what was changed by hand, or copy the table again: `cdc resync SOURCE TARGET --tables TABLE`.",
        )
    return InvariantError(
        f"DuckDB refused a statement on {path} ({type(error).__name__}).",
        hint="Nothing was applied. Please report this with the version of duckdb.",
    )
