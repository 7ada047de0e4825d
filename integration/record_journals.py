"""Record the journals of `tests/journal/recorded` again: `python -m integration.record_journals`.

Each holds a bit of everything that a source can say, and beside it what its tables were in the end, compared with
the source. Later versions must read the same out of them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.options import Options
from cdc.runs import open_pipeline, open_rebuild
from integration.conftest import Database, MySqlDatabase, Replica
from tests.journal.content import digests

FOLDER = Path(__file__).parent.parent / "tests" / "journal" / "recorded"
_ROWS = "INSERT INTO t VALUES (1, 'a', 1.50, NULL), (2, '', -0.01, '2024-02-29'), (3, NULL, NULL, '1999-12-31')"
_WORK = (
    "UPDATE t SET v = 'é😀' WHERE id = 1",
    "UPDATE t SET id = 20 WHERE id = 2",
    "DELETE FROM t WHERE id = 3",
    "INSERT INTO t VALUES (3, 'again', 3, NULL), (4, 'x', 4, NULL)",
    "ALTER TABLE t ADD COLUMN w int DEFAULT 7",
    "INSERT INTO t (id) VALUES (5)",
    "ALTER TABLE t DROP COLUMN n",
    "UPDATE t SET w = 8 WHERE id = 20",
    "INSERT INTO k VALUES (1, 'x'), (1, 'x'), (2, NULL)",
    "DELETE FROM k WHERE a = 2",
    "TRUNCATE e",
    "INSERT INTO e VALUES (9)",
)
_TABLES = (
    "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), d date)",
    "CREATE TABLE k (a int, b varchar(20))",
    "CREATE TABLE e (id int PRIMARY KEY)",
)


def record(name: str, database: Database | MySqlDatabase) -> None:
    """One journal, of a pipeline that ended and began again with each statement."""
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    journal = f"journal:{FOLDER / name / 'journal'}"
    (FOLDER / name).mkdir(parents=True)
    for statement in (*_TABLES, _ROWS, "INSERT INTO e VALUES (1), (2)"):
        database.execute(statement)
    if isinstance(database, Database):
        database.execute("ALTER TABLE k REPLICA IDENTITY FULL")
    options = Options(name="recorded", until_caught_up=True)
    for statement in ("", *_WORK):
        if statement:
            database.execute(statement)
        open_pipeline(database.dsn, journal, options).run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rebuilt.duckdb"
        open_rebuild(journal, f"duckdb:{path}", None, Options()).run()
        Replica(database, path, options).assert_equal()
        (FOLDER / name / "content.json").write_text(json.dumps(digests(path), indent=1) + "\n")
    for left in ("lock", "readers"):
        shutil.rmtree(FOLDER / name / "journal" / left, ignore_errors=True)
        (FOLDER / name / "journal" / left).unlink(missing_ok=True)


def main() -> None:
    with PrivatePostgres(18) as postgres:
        postgres.create_database("recorded")
        record("postgresql", Database(postgres, "recorded"))
    for flavor in ("mysql", "mariadb"):
        with PrivateMySql(flavor) as server:
            server.create_database("recorded")
            record(flavor, MySqlDatabase(server, "recorded"))


if __name__ == "__main__":
    main()
