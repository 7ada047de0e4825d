"""The published file as readers see it: always whole, and the same one until a transaction ends."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
from sqlglot import exp

from cdc.serve import catalog
from cdc.serve.limits import MEGABYTE, Limits
from cdc.serve.spill import Spill
from cdc.tables.names import CATALOG
from cdc.targets.duckdb.questions import look_in, schemas_of
from cdc.targets.duckdb.refusals import NO_FILE, Refused, refusal

log = logging.getLogger(__name__)

Identity = tuple[int, int, int, int]


class Edition:
    """One published file, open for reading in a DuckDB of its own that can reach nothing else.

    Attributes:
        identity: what the file system knows the file by.
        schemas: in which a name without one is looked for, in this order.
    """

    def __init__(self, file: Path, limits: Limits, spill: Path) -> None:
        self.identity = identity(file)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{limits.memory // MEGABYTE}MB",
            "temp_directory": str(spill),
            # Otherwise a reader could fill the disk that the pipeline writes to.
            "max_temp_directory_size": f"{4 * limits.memory // MEGABYTE}MB",
            "python_enable_replacements": False,  # names in a query are not variables of this program
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
        }
        self._connection = duckdb.connect(":memory:", config=settings)
        try:
            name = exp.Literal.string(str(file.absolute())).sql()
            # Under the name that its views may have been made with.
            self._connection.execute(f"ATTACH {name} AS {CATALOG} (TYPE duckdb, READ_ONLY)")
            self.schemas = schemas_of(self._connection)
            self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
            self._connection.execute("SET enable_external_access = false")
            self._connection.execute("SET lock_configuration = true")
        except BaseException:
            self._connection.close()
            raise
        self.readers = 0
        self._describing = threading.Lock()
        self._is_described = False

    def cursor(self, schemas: Sequence[str] | None = None) -> duckdb.DuckDBPyConnection:
        """Another connection to it.

        Args:
            schemas: in which a name without one is looked for, if not in all; one that is not there is passed over.
        """
        wanted = self.schemas if schemas is None else [schema for schema in schemas if schema in self.schemas]
        cursor = self._connection.cursor()
        look_in(cursor, wanted)
        named = exp.Array(expressions=[exp.Literal.string(schema) for schema in wanted])
        cursor.execute(f"SET VARIABLE {catalog.PATH} = CAST({named.sql(dialect='duckdb')} AS VARCHAR[])")
        return cursor

    def describe(self) -> bool:
        """Make PostgreSQL's catalogue, which takes longer than to open the file; whether it was not there before.

        A transaction that was begun before does not see it.

        Raises:
            Refused: it cannot be made just now, for example for want of memory.
        """
        with self._describing:
            if self._is_described:
                return False
            try:
                self._connection.execute(f"BEGIN; {catalog.SETUP}; COMMIT")
            except duckdb.Error as error:
                with suppress(duckdb.Error):
                    self._connection.rollback()
                raise refusal(error) from error
            self._is_described = True
            return True

    def close(self) -> None:
        self._connection.close()


class Editions:
    """The file under its name, whichever that is just now."""

    def __init__(self, file: Path, limits: Limits) -> None:
        self.file = file
        self.name = file.name.partition(".")[0]  # what readers see as the name of the database
        self.limits = limits
        self._spill = Spill()
        self._lock = threading.Lock()
        self._current: Edition | None = None

    def take(self) -> Edition:
        """The newest edition, which stays open until it is given back.

        Raises:
            Refused: there is no file, or not one that can be read.
        """
        with self._lock:
            try:
                if self._current is None or self._current.identity != identity(self.file):
                    newest = Edition(self.file, self.limits, self._spill.another())
                    self._let_go(self._current)
                    self._current = newest
            except FileNotFoundError as error:
                raise Refused(f"Nothing is published yet: there is no {self.file.name}.", NO_FILE) from error
            except (duckdb.Error, OSError) as error:
                log.warning("%s cannot be read: %s", self.file, error)
                raise Refused(
                    f"{self.file.name} cannot be read.", NO_FILE, hint="The log of the server says why."
                ) from error
            self._current.readers += 1
            return self._current

    def give_back(self, edition: Edition) -> None:
        with self._lock:
            edition.readers -= 1
            if edition is not self._current:
                self._let_go(edition)

    @contextmanager
    def taken(self) -> Iterator[Edition]:
        """The newest edition, for one question."""
        edition = self.take()
        try:
            yield edition
        finally:
            self.give_back(edition)

    def close(self) -> None:
        with self._lock:
            self._let_go(self._current)
            self._current = None
        self._spill.close()

    def _let_go(self, edition: Edition | None) -> None:
        if edition is not None and not edition.readers:
            edition.close()


def identity(file: Path) -> Identity:
    """What tells a file from another one of the same name, also if its number comes back."""
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
