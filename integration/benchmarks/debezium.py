"""Debezium's embedded engine, out of Maven's packages, with events in JSON that nothing is done with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Self

from cdc.demo.private import cache_folder
from cdc.errors import UsageError
from integration.benchmarks.contenders import Backlog
from integration.benchmarks.measure import Took, run

VERSION = "3.6.1.Final"
_ARTIFACTS = ("debezium-api", "debezium-embedded", "debezium-connector-postgres")
_SERVERS = Path(__file__).parents[1] / "servers"
_READER = Path(__file__).with_name("DebeziumReader.java")
_TOPIC = "peers"
_SLOT, _BASE = "debezium", "debezium_base"
_SETTINGS = {
    "name": _TOPIC,
    "topic.prefix": _TOPIC,
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
    "plugin.name": "pgoutput",
    "publication.name": _SLOT,
    "publication.autocreate.mode": "disabled",
    "slot.name": _SLOT,
    "tombstones.on.delete": "false",
    # Tuned: the defaults are 2,048 and 8,192, and each event with its schema.
    "max.batch.size": "8192",
    "max.queue.size": "32768",
    "converter.schemas.enable": "false",
}


class Debezium:
    """A contender that keeps nothing; it runs until it has seen as many events as there are.

    Args:
        folder: where its reader is compiled to.
        libraries: the engine and all that it needs.
    """

    title = f"Debezium {VERSION}"
    goal = None

    def __init__(self, folder: Path, libraries: Path) -> None:
        self._folder = folder
        self._classes = f"{libraries}/*:{folder}"
        self._backlog: Backlog

    @classmethod
    def found(cls, folder: Path) -> Self:
        """Fetched by Maven where it is not there yet, and compiled; raises UsageError without Java or Maven."""
        if absent := [program for program in ("java", "javac", "mvn") if shutil.which(program) is None]:
            raise UsageError(f"This machine has no {', '.join(absent)}.", hint="Install a JDK and Maven.")
        engine = cache_folder() / "debezium-engine"
        artifacts = [said for name in _ARTIFACTS for said in (f"io.debezium:{name}", VERSION)]
        fetch = [str(_SERVERS / "unpack_maven.sh"), str(engine), str(_SERVERS / "debezium-engine.sha256"), *artifacts]
        libraries = engine / "libs"
        compiling = ["javac", "-cp", f"{libraries}/*", "-d", str(folder), str(_READER)]
        for command in (fetch, compiling):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise UsageError(f"{Path(command[0]).name} failed: {done.stderr.strip()[-500:]}")
        return cls(folder, libraries)

    def begin(self, backlog: Backlog) -> None:
        self._publish(backlog)
        backlog.server.execute(f"SELECT pg_create_logical_replication_slot('{_BASE}', 'pgoutput')", backlog.name)
        # An event that each run begins with, so that one with nothing to drain has an end, too.
        backlog.server.execute("SELECT pg_logical_emit_message(true, 'begin', '')", backlog.name)

    def take(self, *, is_idle: bool) -> Took:
        server = self._backlog.server
        server.execute(f"SELECT pg_copy_logical_replication_slot('{_BASE}', '{_SLOT}')", self._backlog.name)
        took = self._run("no_data", 1 if is_idle else 1 + self._backlog.rows)
        self._drop_slots(_SLOT)
        return took

    def copy(self, backlog: Backlog, *, is_idle: bool) -> Took:
        """Copy a table that has one row at least."""
        self._publish(backlog)
        took = self._run("initial_only", 1 if is_idle else backlog.rows)
        self.end()
        return took

    def end(self) -> None:
        self._drop_slots("debezium%")
        self._backlog.server.execute(f"DROP PUBLICATION {_SLOT}", self._backlog.name)

    def _publish(self, backlog: Backlog) -> None:
        self._backlog = backlog
        backlog.server.execute(f"CREATE PUBLICATION {_SLOT} FOR ALL TABLES", backlog.name)

    def _drop_slots(self, like: str) -> None:
        """The server may still be ending the session of a program that has ended."""
        slots = f"FROM pg_replication_slots WHERE slot_name LIKE '{like}'"
        self._backlog.server.execute(f"SELECT pg_terminate_backend(active_pid, 10000) {slots} AND active")
        self._backlog.server.execute(f"SELECT pg_drop_replication_slot(slot_name) {slots}")

    def _run(self, snapshot: str, events: int) -> Took:
        server = self._backlog.server
        settings = _SETTINGS | {
            "database.hostname": "127.0.0.1",
            "database.port": str(server.port),
            "database.user": "postgres",
            "database.password": server.password,
            "database.dbname": self._backlog.name,
            "table.include.list": "public.t",
            "snapshot.mode": snapshot,
        }
        file = self._folder / "settings.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return run(["java", "-cp", self._classes, _READER.stem, str(file), str(events)])
