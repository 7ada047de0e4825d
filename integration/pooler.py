"""A private PgBouncer in front of a PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import psycopg

from cdc.demo.mysql import Programs
from cdc.demo.private import cache_folder, free_port
from cdc.demo.server import PrivatePostgres
from cdc.errors import Unavailable

_START_WITHIN = 20.0  # seconds


class PrivatePooler:
    """One pooler on a free port, gone when this is closed. Everybody is the server's superuser.

    Args:
        mode: `session` or `transaction`.
        settings: others of PgBouncer's.
    """

    def __init__(self, server: PrivatePostgres, mode: str, **settings: str) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="cdc-pooler-"))
        given = {"listen_addr": "127.0.0.1", "listen_port": str(self.port), "unix_socket_dir": "", "auth_type": "any"}
        given |= {"pool_mode": mode} | settings
        lines = [f"{name} = {value}" for name, value in given.items()]
        login = f"* = host=127.0.0.1 port={server.port} user=postgres password={server.password}"
        self._settings = self._folder / "pgbouncer.ini"
        self._settings.write_text("\n".join(["[databases]", login, "[pgbouncer]", *lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = Programs("pgbouncer", cache_folder() / "pgbouncer").command("pgbouncer")
        as_somebody = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to be root
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([*program, *as_somebody, str(self._settings)], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "log").read_text()
                self.close()
                raise Unavailable(f"PgBouncer did not start: {said[-2000:]}")
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn("pgbouncer", user="pgbouncer")).close()
        except psycopg.OperationalError:
            return False
        return True

    def dsn(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
