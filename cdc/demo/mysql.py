"""Private MySQL and MariaDB servers in temporary folders, from the machine's programs or from `make servers`."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pymysql

from cdc.demo.server import free_port
from cdc.errors import Unavailable, UsageError

_START_WITHIN = 60.0  # seconds
_SETTINGS = {
    "bind-address": "127.0.0.1",
    "log-bin": "binlog",
    "server-id": "1",
    "binlog-row-image": "FULL",
    "binlog-row-metadata": "FULL",
    "innodb-flush-log-at-trx-commit": "2",  # nothing here must outlive the machine
    "sync-binlog": "0",
    "max-connections": "100",
    "max-allowed-packet": "1G",
    "character-set-server": "utf8mb4",
}


def cache_folder() -> Path:
    """Where `make servers` unpacks servers: outside of the checkout, so that all checkouts share it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "cdc-servers"


@dataclass(frozen=True, slots=True)
class Programs:
    """A server's programs: those of the machine, or an unpacked folder that is run with its own libraries."""

    flavor: str
    root: Path | None

    @classmethod
    def find(cls, flavor: str) -> Programs:
        """The unpacked server if there is one, else the machine's; raises UsageError if there is neither."""
        root = cache_folder() / flavor
        if (root / "usr/sbin" / cls._server_name(flavor)).exists():
            return cls(flavor, root)
        found = shutil.which(cls._server_name(flavor), path=os.environ.get("PATH", "") + ":/usr/sbin")
        if found and (flavor == "mariadb" or not Path("/usr/sbin/mariadbd").exists()):
            return cls(flavor, None)
        raise UsageError(f"There is no {flavor} server on this machine.", hint="`make servers` gets one.")

    @staticmethod
    def _server_name(flavor: str) -> str:
        return "mariadbd" if flavor == "mariadb" else "mysqld"

    @property
    def share(self) -> Path:
        for path in ("usr/share/mariadb", "usr/share/mysql"):
            if (found := (self.root or Path("/")) / path).exists():
                return found
        return (self.root or Path("/")) / "usr/share/mysql"

    def command(self, program: str) -> list[str]:
        """How to run `mysqld`, `mariadb-dump` and the like."""
        if self.root is None:
            found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
            if found is None:
                raise UsageError(f"There is no program {program!r} on this machine.")
            return [found]
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        loader = libraries / "ld-linux-x86-64.so.2"
        if not loader.exists():
            libraries = self.root / "lib/x86_64-linux-gnu"
            loader = libraries / "ld-linux-x86-64.so.2"
        paths = ":".join(str(self.root / path) for path in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
        for folder in ("usr/sbin", "usr/bin"):
            if (binary := self.root / folder / program).exists():
                return [str(loader), "--library-path", paths, str(binary)]
        raise UsageError(f"There is no program {program!r} in {self.root}.")


class PrivateMySql:
    """One server on a free port, gone with everything it holds when this is closed.

    Args:
        flavor: `mysql` or `mariadb`.
        settings: server options beside the usual ones.
    """

    def __init__(self, flavor: str, settings: dict[str, str] | None = None) -> None:
        self.flavor = flavor
        self.programs = Programs.find(flavor)
        self.folder = Path(tempfile.mkdtemp(prefix=f"cdc-{flavor}-"))
        self.data = self.folder / "data"
        self.port = free_port()
        self._settings = _SETTINGS | _flavored(flavor) | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "root" if os.geteuid() == 0 else None  # which it otherwise refuses to run as

    def __enter__(self) -> Self:
        self.create()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self) -> None:
        """Make the data folder."""
        atexit.register(self.close)
        self.data.mkdir()
        if self.flavor == "mysql":
            self._run([*self._server(), "--initialize-insecure"])
            return
        share = self.programs.share
        scripts = ["mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"]
        scripts += ["fill_help_tables.sql", "maria_add_gis_sp_bootstrap.sql"]
        scripts = [name.replace("mysql_", "mariadb_") if not (share / name).exists() else name for name in scripts]
        text = "CREATE DATABASE mysql;\nUSE mysql;\n" + "\n".join(
            (share / name).read_text() for name in scripts if (share / name).exists()
        )
        self._run([*self._server(), "--bootstrap", "--skip-log-bin"], text.encode())

    def start(self) -> None:
        """Start the server and wait until it answers; at its first start make the user that `dsn` names."""
        is_first = not (self.data / ".cdc").exists()
        command = [*self._server(), f"--port={self.port}", f"--socket={self.socket}", f"--pid-file={self.folder}/pid"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_WITHIN
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"The {self.flavor} server did not start: {self._said()}")
            try:
                with pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True) as connection:
                    if is_first:
                        self._make_user(connection)
                break
            except pymysql.err.OperationalError:
                time.sleep(0.05)
        (self.data / ".cdc").touch()

    def _make_user(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET sql_log_bin = 0")
            cursor.execute("CREATE USER cdc@'127.0.0.1' IDENTIFIED BY 'secret'")
            cursor.execute("GRANT ALL ON *.* TO cdc@'127.0.0.1' WITH GRANT OPTION")
            if "skip-log-bin" not in self._settings:
                cursor.execute("RESET BINARY LOGS AND GTIDS" if self.flavor == "mysql" else "RESET MASTER")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server; SIGKILL is a crash."""
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait()
        self._process = None

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop and start on the same port."""
        self.stop(number)
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        atexit.unregister(self.close)
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    def dsn(self, database: str = "") -> str:
        return f"{self.flavor}://cdc:secret@127.0.0.1:{self.port}/{database}"

    def arguments(self, database: str | None = None) -> dict[str, Any]:
        """What `pymysql.connect` needs."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "cdc",
            "password": "secret",
            "database": database,
            "autocommit": True,
            "charset": "utf8mb4",
        }

    def connect(self, database: str | None = None) -> Any:
        """An ordinary session."""
        return pymysql.connect(**self.arguments(database))

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run statements in a session of their own; rows of the last one."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if statements else []

    def create_database(self, name: str) -> str:
        """Make a database and return its DSN."""
        self.execute(f"CREATE DATABASE `{name}`")
        return self.dsn(name)

    def _server(self) -> list[str]:
        server = "mariadbd" if self.flavor == "mariadb" else "mysqld"
        share = self.programs.share
        paths = {"datadir": str(self.data), "tmpdir": str(self.folder)}
        if self.programs.root is not None:
            plugins = self.programs.root / "usr/lib/mysql/plugin"
            paths |= {
                "basedir": str(self.programs.root / "usr"),
                "lc-messages-dir": str(share),
                "character-sets-dir": str(self.programs.root / "usr/share/mysql/charsets"),
            }
            if plugins.exists():
                paths["plugin-dir"] = str(plugins)
        options = [f"--{name}={value}" for name, value in (paths | self._settings).items()]
        options += [f"--user={self._user}"] if self._user else []
        return [*self.programs.command(server), "--no-defaults", *options]

    def _run(self, command: list[str], given: bytes = b"") -> None:
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        (self.folder / "log").write_bytes(done.stdout + done.stderr)
        if done.returncode != 0:
            raise Unavailable(f"The {self.flavor} server could not be set up: {self._said()}")

    def _said(self) -> str:
        log = self.folder / "log"
        return " | ".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""


def _flavored(flavor: str) -> dict[str, str]:
    if flavor == "mysql":
        return {
            "gtid-mode": "ON",
            "enforce-gtid-consistency": "ON",
            "mysqlx": "OFF",
            "secure-file-priv": "",
            "innodb-redo-log-capacity": "8M",
        }
    return {"binlog-format": "ROW", "gtid-strict-mode": "ON", "innodb-log-file-size": "64M"}
