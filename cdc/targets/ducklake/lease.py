"""One writer for a lake: what keeps a second pipeline from it, which DuckLake itself would let in."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

import psycopg

from cdc.errors import CdcError, TargetBusy, Unavailable, UsageError
from cdc.targets.ducklake.address import Lake

_KEY = 0x63_64_63_6C_61_6B_65  # "cdclake": of the advisory lock, which is of one database
_NOT_LET_IN = ("authentication", "pg_hba", "no password", "does not exist")


class Lease(Protocol):
    """The right to write to a lake."""

    def take(self) -> None:
        """Take it; raises TargetBusy if another process has it."""

    def verify(self) -> None:
        """Raise TargetBusy if it was lost meanwhile."""

    def release(self) -> None:
        """Give it back. May be called twice."""


def lease_of(lake: Lake) -> Lease:
    """The one that fits a catalogue."""
    return FileLease(lake.file) if lake.file is not None else ServerLease(lake)


class FileLease:
    """A lock on a file beside the catalogue."""

    def __init__(self, catalogue: Path) -> None:
        self._file = catalogue.with_name(f"{catalogue.name}.lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise _busy(str(self._file)) from error
        self._descriptor = descriptor

    def verify(self) -> None:
        """The system keeps the lock as long as this process lives."""

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ServerLease:
    """An advisory lock of a session of the catalogue's PostgreSQL server, which ends with the session."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._session: psycopg.Connection[tuple[bool]] | None = None

    def take(self) -> None:
        try:
            session = psycopg.connect(
                self._lake.server,
                autocommit=True,
                application_name="cdc lease",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
            )
            (is_ours,) = session.execute("SELECT pg_try_advisory_lock(%s)", [_KEY]).fetchone() or (False,)
        except psycopg.OperationalError as error:
            raise self._meaning(str(error).partition("\n")[0].strip()) from error
        if not is_ours:
            session.close()
            raise _busy(str(self._lake))
        self._session = session

    def _meaning(self, said: str) -> CdcError:
        if any(words in said for words in _NOT_LET_IN):
            return UsageError(
                f"{self._lake}: the catalogue's server refuses the login: {said}",
                hint="Check the user, the password (PGPASSWORD or ~/.pgpass) and the name of the database.",
            )
        return Unavailable(f"{self._lake}: the catalogue's server does not answer: {said}", hint="It is tried again.")

    def verify(self) -> None:
        try:
            if self._session is not None:
                self._session.execute("SELECT true")
        except psycopg.OperationalError as error:
            raise Unavailable(f"{self._lake}: the session that keeps others from writing was lost.") from error

    def release(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _busy(what: str) -> TargetBusy:
    return TargetBusy(
        f"{what}: another pipeline writes to this lake.", hint="One lake, one pipeline: stop the other one."
    )
