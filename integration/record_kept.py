"""Record what this version leaves on disk into `tests/kept`: `python -m integration.record_kept [SOURCE...]`.

Do so when a version is released, or when something new comes into a target, a journal or a state, and keep what is there:
every later version has to read it and go on from it (`integration/test_kept.py`).
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from cdc.connectors import target_module
from cdc.demo.mysql import PrivateMySql
from cdc.options import Options
from cdc.runs import open_rebuild
from cdc.sources.mysql.state import SourceState
from cdc.targets.duckdb.target import DuckDbTarget
from cdc.version import VERSION
from integration.conftest import Database, MySqlDatabase
from integration.kept import DATABASE, DUCKDB, FOLDER, JOURNAL, LINES, KeptPostgres, target
from integration.processes import cdc
from tests.journal.content import digests

_TABLES = (
    "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), d date)",
    "CREATE TABLE k (a int, b varchar(20))",
    "CREATE TABLE e (id int PRIMARY KEY)",
    "CREATE TABLE held (id int PRIMARY KEY, v int)",
    "CREATE TABLE doubted (id int PRIMARY KEY, v int)",
    "CREATE TABLE other (id int PRIMARY KEY)",
)
_OF_POSTGRESQL = ("ALTER TABLE k REPLICA IDENTITY FULL",)
_ROWS = (
    "INSERT INTO t VALUES (1, 'a', 1.50, NULL), (2, '', -0.01, '2024-02-29'), (3, NULL, NULL, '1999-12-31')",
    "INSERT INTO e VALUES (1), (2)",
    "INSERT INTO held VALUES (1, 1), (2, 2)",
    "INSERT INTO doubted VALUES (1, 1), (2, 2)",
)
_WORK = (
    "UPDATE t SET v = 'é😀' WHERE id = 1",
    "UPDATE t SET id = 20 WHERE id = 2",
    "DELETE FROM t WHERE id = 3",
    "INSERT INTO t VALUES (3, 'again', 3, NULL), (4, 'x', 4, NULL)",
    "INSERT INTO k VALUES (1, 'x'), (1, 'x'), (2, NULL)",
    "DELETE FROM k WHERE a = 2",
    "TRUNCATE TABLE e",
    "INSERT INTO e VALUES (9)",
    "ALTER TABLE t ADD COLUMN w int DEFAULT 7",
    "INSERT INTO t (id) VALUES (5)",
    "UPDATE t SET w = 8 WHERE id = 20",
    "UPDATE doubted SET v = 20 WHERE id = 2",
)
# What the column's type in the target has no place for: it becomes text.
_WIDENING = {
    "postgresql": ("INSERT INTO t (id, n) VALUES (6, 'NaN')",),
    "mysql": ("SET sql_mode = ''", "INSERT INTO t (id, d) VALUES (6, '0000-00-00')"),
    "mariadb": ("SET sql_mode = ''", "INSERT INTO t (id, d) VALUES (6, '0000-00-00')"),
}
_HOLDING = ("UPDATE held SET v = 10 WHERE id = 1",)


def record(source: str, into: Path) -> None:
    """What there is of one kind of source."""
    with ExitStack() as stack:
        if source == "postgresql":
            server = stack.enter_context(KeptPostgres())
            server.create_database(DATABASE)
            server.make_small()
            database: Database | MySqlDatabase = Database(server, DATABASE)
        else:
            server = stack.enter_context(PrivateMySql(source))
            server.create_database(DATABASE)
            database = MySqlDatabase(server, DATABASE)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        content = _work(source, database, folder)
        if isinstance(server, KeptPostgres):
            server.execute("CHECKPOINT", DATABASE)
            server.stop()
            shutil.copytree(server.data, folder / "server")
            shutil.rmtree(folder / "server" / "pg_stat", ignore_errors=True)
            (folder / "server" / "pg_stat").mkdir()
            for cache in (folder / "server").rglob("pg_internal.init"):
                cache.unlink()
        _pack(folder, into / f"{source}.tar.xz")
        (into / f"{source}.json").write_text(json.dumps(content, indent=1) + "\n")


def _work(source: str, database: Database | MySqlDatabase, folder: Path) -> dict[str, object]:
    """Run all kinds of targets; what they hold in the end."""
    setup = [*_TABLES, *(_OF_POSTGRESQL if source == "postgresql" else ()), *_ROWS]
    work = [*_WORK, *_WIDENING[source]]
    for statements in (setup, work):
        _execute(database, statements)
        _run_all(database, folder)
    with duckdb.connect(str(folder / "mirror.duckdb")) as connection:
        schema = "public" if source == "postgresql" else DATABASE
        connection.execute(f'ALTER TABLE mirror."{schema}".held RENAME COLUMN v TO w')
    _execute(database, _HOLDING)
    _run_all(database, folder, holds="mirror")
    module, path = target_module(target(folder, "mirror"))
    checkpoint = module.read_checkpoint(path, "kept_mirror")
    _doubt(folder / "mirror.duckdb", f"{schema}.doubted")
    open_rebuild(target(folder, JOURNAL), f"duckdb:{folder}/rebuilt.duckdb", None, Options()).run()
    rebuilt = digests(folder / "rebuilt.duckdb")
    (folder / "rebuilt.duckdb").unlink()
    history = f"duckdb:{folder / 'history.duckdb'}"
    asked = [("history", history, "t", key, "--json") for key in ("1", "2", "3", "20")]
    asked += [("as-of", history, "t", place, "--format", "json") for place in _places(folder / "history.duckdb")]
    return {
        "duckdb": duckdb.__version__,
        "statements": [*setup, *work, *_HOLDING],
        "gtids": "" if source == "postgresql" else SourceState.load(checkpoint.state).gtids,
        "tables": {name: digests(folder / f"{name}.duckdb") for name in DUCKDB},
        "rebuilt": rebuilt,
        "answers": [{"asked": [*question[:1], *question[2:]], "answer": _said(*question)} for question in asked],
        "lines": {name: len((folder / f"{name}.jsonl").read_text().splitlines()) for name in LINES},
    }


def _run_all(database: Database | MySqlDatabase, folder: Path, holds: str = "") -> None:
    more = {
        "history": ("--mode", "history"),
        "soft_delete": ("--mode", "soft-delete", "--exclude", "*.k"),
        "debezium": ("--format", "debezium"),
    }
    ends: dict[str, tuple[str, ...]] = {
        name: (target(folder, name), *more.get(name, ())) for name in ("mirror", "history", "soft_delete", *LINES)
    }
    ends["fed"] = ("--journal", str(folder / JOURNAL), "--to", target(folder, "fed"))
    for name, arguments in ends.items():
        options = ("--name", f"kept_{name}", "--until-caught-up", "--exclude", "*.other")
        done = cdc("run", database.dsn, *arguments, *options)
        assert done.returncode == (1 if name == holds else 0), (name, done)


def _execute(database: Database | MySqlDatabase, statements: list[str] | tuple[str, ...]) -> None:
    if isinstance(database, MySqlDatabase):
        database.execute(*statements)
        return
    for statement in statements:
        database.execute(statement)


def _doubt(path: Path, table: str) -> None:
    """A table that is to be compared with its source, and in which a row is wrong."""
    with duckdb.connect(str(path)) as connection:
        query = "SELECT identity FROM _cdc.tables WHERE schema_name || '.' || table_name = ?"
        ((identity,),) = connection.execute(query, [table]).fetchall()
        connection.execute(f"UPDATE {path.stem}.{table} SET v = -1 WHERE id = 1")
    marked = DuckDbTarget(path, 64 << 20)
    marked.open()
    marked.suspect(identity, "recorded so")
    marked.close()


def _places(path: Path) -> list[str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute("SELECT position FROM _cdc_history.commits ORDER BY position_order").fetchall()
        return [position for (position,) in found]


def _said(*arguments: str) -> str:
    done = cdc(*arguments)
    return done.stdout if done.returncode == 0 else f"{done.returncode}"


def _pack(folder: Path, archive: Path) -> None:
    """One file, the same from the same content."""
    for left in ("lock", "readers.lock"):
        for path in folder.rglob(left):
            path.unlink()

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=plain)
    archive.write_bytes(packed.getvalue())
    print(f"{archive}: {len(packed.getvalue()):,} bytes")


def main() -> None:
    into = FOLDER / f"{VERSION}-{datetime.now(UTC):%Y-%m-%d}-duckdb-{duckdb.__version__}"
    into.mkdir(parents=True, exist_ok=True)
    for source in sys.argv[1:] or ("postgresql", "mysql", "mariadb"):
        record(source, into)


if __name__ == "__main__":
    main()
