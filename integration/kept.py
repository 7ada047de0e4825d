"""What versions of this program have left on disk (`tests/kept`), and servers that it can be continued from.

Of each version and source there is an archive: targets and journals as a run left them, with what lies beside them,
and of PostgreSQL the server itself, which nothing else can take the place of. MySQL and MariaDB are known by what they
have executed, so that another server which says so can be followed in their place.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from integration.conftest import Database, MySqlDatabase

FOLDER = Path(__file__).parent.parent / "tests" / "kept"
DATABASE = "kept"
DUCKDB = ("mirror", "history", "soft_delete", "fed")  # the last one from the journal
LINES = ("lines", "debezium")
JOURNAL = "journal"

_PASSWORD = "kept"


class Kept:
    """What one version left of a pipeline from one kind of source.

    Args:
        name: of the version, as its folder is called.
        source: `postgresql`, `mysql` or `mariadb`.
        folder: where it is unpacked.

    Attributes:
        content: what was there when it was recorded.
    """

    def __init__(self, name: str, source: str, folder: Path) -> None:
        self.source = source
        self.folder = folder
        archive = FOLDER / name / f"{source}.tar.xz"
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        self.content: dict[str, Any] = json.loads((FOLDER / name / f"{source}.json").read_text())

    def target(self, name: str) -> str:
        """How a target is called on the command line."""
        return target(self.folder, name)

    @contextmanager
    def server(self) -> Iterator[Database | MySqlDatabase]:
        """A server that the targets can be continued from."""
        if self.source == "postgresql":
            with KeptPostgres(self.folder / "server") as postgres:
                yield Database(postgres, DATABASE)
            return
        with PrivateMySql(self.source, {"server-id": "2"}) as server:
            gtids = self.content["gtids"]
            server.execute(f"CREATE DATABASE {DATABASE}")
            database = MySqlDatabase(server, DATABASE)
            database.execute(*self.content["statements"])
            # It has all that the other one had executed, and nothing of that in its log.
            if self.source == "mysql":
                server.execute("RESET BINARY LOGS AND GTIDS", f"SET GLOBAL gtid_purged = '{gtids}'")
            else:
                server.execute("RESET MASTER", f"SET GLOBAL gtid_binlog_state = '{gtids}'")
            yield database


class KeptPostgres(PrivatePostgres):
    """The recorded server itself, on another port.

    Args:
        data: its data folder, if it is there already.
    """

    def __init__(self, data: Path | None = None) -> None:
        # As small as it can be.
        settings = {"min_wal_size": "2MB", "max_wal_size": "4MB", "wal_recycle": "off", "full_page_writes": "off"}
        settings |= {"autovacuum": "off"}
        initdb = ("--wal-segsize=1", "--no-data-checksums", "--no-instructions")
        super().__init__(18, settings=settings, password=_PASSWORD, initdb=initdb)
        self._recorded = data

    def make_data(self) -> None:
        if self._recorded is None:
            super().make_data()
            return
        atexit.register(self.close)
        shutil.copytree(self._recorded, self.data)
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"unix_socket_directories = '{self.folder}'\n")
        self.data.chmod(0o700)
        if self._user is not None:
            for folder, _, files in os.walk(self.data):
                for path in (Path(folder), *(Path(folder) / file for file in files)):
                    os.chown(path, self._user, self._user)

    def make_small(self) -> None:
        """Take away what nothing here needs: the other databases, and most of the catalog's texts."""
        statements = ["ALTER DATABASE template0 IS_TEMPLATE false", "ALTER DATABASE template1 IS_TEMPLATE false"]
        statements += [f"DROP DATABASE {name}" for name in ("template0", "template1", "postgres")]
        statements += ["DELETE FROM pg_description", "DROP SCHEMA information_schema CASCADE"]
        statements += ["DELETE FROM pg_collation WHERE collname NOT IN ('C', 'default', 'POSIX', 'ucs_basic')"]
        for statement in [*statements, "VACUUM FULL", "CHECKPOINT"]:
            self.execute(statement, DATABASE)


def target(folder: Path, name: str) -> str:
    """How a target in a folder is called on the command line."""
    if name in DUCKDB:
        return f"duckdb:{folder / name}.duckdb"
    return f"jsonl:{folder / name}.jsonl" if name in LINES else f"journal:{folder / name}"


def recorded() -> list[tuple[str, str]]:
    """Each version and source of which there is something."""
    return sorted((path.parent.name, path.name.partition(".")[0]) for path in FOLDER.glob("*/*.tar.xz"))
