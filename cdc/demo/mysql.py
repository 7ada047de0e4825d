"""Private MySQL and MariaDB servers in temporary folders, from the machine's programs or from `make servers`."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql

from cdc.demo.private import START_WITHIN, PrivateServer, cache_folder, end_of, written
from cdc.errors import Unavailable, UsageError

_SETTINGS = {
    "bind-address": "127.0.0.1",
    "log-bin": "binlog",
    "server-id": "1",
    "binlog-row-image": "FULL",
    "innodb-flush-log-at-trx-commit": "2",  # nothing here must outlive the machine
    "sync-binlog": "0",
    "max-connections": "100",
    "max-allowed-packet": "1G",
    "character-set-server": "utf8mb4",
}
_NAMED = {"binlog-row-metadata": "FULL"}  # columns have their names in the log
_OF_MARIADB = _NAMED | {"binlog-format": "ROW", "gtid-strict-mode": "ON", "innodb-log-file-size": "64M"}
_WITH_GTIDS = {"gtid-mode": "ON", "enforce-gtid-consistency": "ON"}
_OF_EDITION = {
    "mysql": _NAMED | _WITH_GTIDS | {"mysqlx": "OFF", "secure-file-priv": "", "innodb-redo-log-capacity": "8M"},
    "mysql-5.6": _WITH_GTIDS | {"binlog-format": "ROW", "log-slave-updates": "ON", "innodb-log-file-size": "8M"},
    "mariadb": _OF_MARIADB,
    "mariadb-sid": _OF_MARIADB,
}


_FOR_LIFE = ("lower-case-table-names",)  # settings that a data folder keeps from its first moment on
_made: dict[tuple[object, ...], Path] = {}  # data folders as servers make them, by edition and such settings


@dataclass(frozen=True, slots=True)
class Programs:
    """A server's programs: those of the machine, or an unpacked folder that is run with its own libraries.

    Attributes:
        edition: the flavor, or a version of it that `make servers` knows: `mysql-5.6`, `mariadb-sid`.
        root: the unpacked folder; None for those of the machine.
    """

    edition: str
    root: Path | None

    @classmethod
    def find(cls, edition: str) -> Programs:
        """The unpacked server if there is one, else the machine's; raises UsageError if there is neither."""
        unpacked = cls(edition, cache_folder() / edition)
        if unpacked._binary(unpacked.server) is not None:
            return unpacked
        found = shutil.which(unpacked.server, path=os.environ.get("PATH", "") + ":/usr/sbin")
        if found and (edition == "mariadb" or (edition == "mysql" and not Path("/usr/sbin/mariadbd").exists())):
            return cls(edition, None)
        raise UsageError(f"There is no {edition} server on this machine.", hint="`make servers` gets one.")

    @property
    def flavor(self) -> str:
        return self.edition.partition("-")[0]

    @property
    def server(self) -> str:
        return "mariadbd" if self.flavor == "mariadb" else "mysqld"

    @property
    def initializes(self) -> bool:
        """Whether the server makes its system tables by itself, as MySQL does from 5.7 on."""
        return self.edition == "mysql"

    @property
    def share(self) -> Path:
        root = self.root or Path("/")
        paths = ("usr/share/mariadb", "usr/share/mysql", "server/share")
        return next((root / path for path in paths if (root / path).exists()), root / "usr/share/mysql")

    def command(self, program: str) -> list[str]:
        """How to run `mysqld`, `mariadb-dump` and the like."""
        if self.root is None:
            found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
            if found is None:
                raise UsageError(f"There is no program {program!r} on this machine.")
            return [found]
        binary = self._binary(program)
        if binary is None:
            raise UsageError(f"There is no program {program!r} in {self.root}.")
        folders = [self.root / path for path in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "server")]
        libraries = ":".join(str(folder) for folder in folders)
        for folder in folders:
            if (loader := folder / "ld-linux-x86-64.so.2").exists():
                return [str(loader), "--library-path", libraries, str(binary)]
        return ["/usr/bin/env", f"LD_LIBRARY_PATH={libraries}", str(binary)]

    def _binary(self, program: str) -> Path | None:
        assert self.root is not None
        places = (self.root / folder / program for folder in ("usr/sbin", "usr/bin", "server"))
        return next((place for place in places if place.exists()), None)


class PrivateMySql(PrivateServer):
    """One MySQL or MariaDB server, whose socket is in its folder.

    Args:
        edition: `mysql` or `mariadb`, or a version of it that `make servers` knows.
        settings: server options beside the usual ones.
        password: of its users, if that is another server's.
    """

    def __init__(self, edition: str, settings: dict[str, str] | None = None, password: str = "") -> None:
        self.programs = Programs.find(edition)
        self.flavor = self.programs.flavor
        super().__init__(edition, password)
        self._settings = _SETTINGS | _OF_EDITION[edition] | (settings or {})
        self._user = "root" if os.geteuid() == 0 else None  # which it otherwise refuses to run as

    def make_data(self) -> None:
        """Make the data folder, as a copy of the first one of its kind: a server takes seconds to make one."""
        kind = (self.programs.edition, *((name, self._settings.get(name)) for name in _FOR_LIFE))
        if (made := _made.get(kind)) is not None:
            shutil.copytree(made, self.data)
            return
        self.data.mkdir()
        self._initialize()
        kept = Path(tempfile.mkdtemp(prefix=f"cdc-{self.programs.edition}-made-"))
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
        # A server that finds no auto.cnf gives itself an identity of its own.
        shutil.copytree(self.data, kept, ignore=shutil.ignore_patterns("auto.cnf"), dirs_exist_ok=True)
        _made[kind] = kept

    def _initialize(self) -> None:
        if self.programs.initializes:
            self._run([*self._server(), "--initialize-insecure"])
            return
        share = self.programs.share
        scripts = ["mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"]
        scripts += ["fill_help_tables.sql", "maria_add_gis_sp_bootstrap.sql"]
        scripts = [name.replace("mysql_", "mariadb_") if not (share / name).exists() else name for name in scripts]
        text = "CREATE DATABASE mysql;\nUSE mysql;\n" + "\n".join(
            (share / name).read_text() for name in scripts if (share / name).exists()
        )
        users = "global_priv" if self.flavor == "mariadb" else "user"
        text += f"\nDELETE FROM {users} WHERE host <> 'localhost' OR user = '';\n"  # none of them has a password
        self._run([*self._server(), "--bootstrap", "--skip-log-bin", "--loose-gtid-mode=OFF"], text.encode())

    def start(self) -> None:
        """Start the server and wait until it answers; at its first start make the user that `dsn` names."""
        is_first = not (self.data / ".cdc").exists()
        command = [*self._server(), f"--port={self.port}", f"--socket={self.socket}", f"--pid-file={self.folder}/pid"]
        if is_first:
            command.append(f"--init-file={self._users()}")  # which it runs before it lets anybody in
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_WITHIN
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"The {self.flavor} server did not start: {end_of(self.log)}")
            try:
                with self.administrator() as connection, connection.cursor() as cursor:
                    if is_first and "skip-log-bin" not in self._settings:
                        cursor.execute("RESET BINARY LOGS AND GTIDS" if self.programs.initializes else "RESET MASTER")
                break
            except pymysql.err.OperationalError:
                time.sleep(0.05)
        (self.data / ".cdc").touch()

    def _users(self) -> Path:
        """A file with the statements that make the users, each in a line of its own."""
        if self.programs.edition == "mysql-5.6":
            of_root = f"SET PASSWORD FOR root@localhost = PASSWORD('{self.password}')"
        else:
            of_root = f"ALTER USER root@localhost IDENTIFIED BY '{self.password}'"
        statements = (
            "SET sql_log_bin = 0",
            of_root,
            f"CREATE USER cdc@'127.0.0.1' IDENTIFIED BY '{self.password}'",
            "GRANT ALL ON *.* TO cdc@'127.0.0.1' WITH GRANT OPTION",
        )
        return written(self.folder / "users.sql", "".join(f"{statement};\n" for statement in statements))

    def administrator(self) -> Any:
        """A session of root, through the server's socket."""
        return pymysql.connect(unix_socket=str(self.socket), user="root", password=self.password, autocommit=True)

    def add_settings(self, settings: dict[str, str]) -> None:
        """Server options from the next start on."""
        self._settings |= settings

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    def dsn(self, database: str = "", user: str = "cdc", password: str | None = None) -> str:
        """How to reach it: with the authority of its certificate, where it has made itself one."""
        proof = f"?ssl_ca={self._settings.get('ssl-ca', self.data / 'ca.pem')}" if self.programs.initializes else ""
        login = f"{user}:{quote(password or self.password, safe='')}"
        return f"{self.flavor}://{login}@127.0.0.1:{self.port}/{database}{proof}"

    @property
    def without_tls(self) -> tuple[str, ...]:
        """Options of a DSN that go without TLS: with the key that this server wants passwords under then."""
        key = (f"server_public_key={self.data}/public_key.pem",) if self.programs.initializes else ()
        return ("ssl_mode=disabled", *key)

    def arguments(self, database: str | None = None) -> dict[str, Any]:
        """What `pymysql.connect` needs."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "cdc",
            "password": self.password,
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
        share = self.programs.share
        paths = {"datadir": str(self.data), "tmpdir": str(self.folder)}
        if self.programs.root is not None:
            plugins = self.programs.root / "usr/lib/mysql/plugin"
            paths |= {
                "basedir": str(share.parent.parent),
                "lc-messages-dir": str(share),
                "character-sets-dir": str(share / "charsets"),
            }
            if plugins.exists():
                paths["plugin-dir"] = str(plugins)
        options = [f"--{name}={value}" for name, value in (paths | self._settings).items()]
        options += [f"--user={self._user}"] if self._user else []
        return [*self.programs.command(self.programs.server), "--no-defaults", *options]

    def _run(self, command: list[str], given: bytes = b"") -> None:
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        self.log.write_bytes(done.stdout + done.stderr)
        if done.returncode != 0:
            raise Unavailable(f"The {self.flavor} server could not be set up: {end_of(self.log)}")
