"""A failure is recorded, and comes back from the record: the same each time, without the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cdc.model.change import ChangeBatch, Op
from cdc.options import Options
from cdc.runs import open_rebuild
from cdc.tables.apply import Applier
from cdc.tables.table import TargetTable
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.recording import recorded

Rows = list[tuple[object, ...]]


def without_deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect."""
    write = Applier.write

    def write_some(self: Applier, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        write(self, table, [batch.rows(np.flatnonzero(batch.op != Op.DELETE)) for batch in batches])

    monkeypatch.setattr(Applier, "write", write_some)


def rows(replica: Replica, path: Path) -> Rows:
    return Replica(replica.database, path, replica.options).query("SELECT * FROM t ORDER BY id")


def rebuild(path: Path, journal: Path) -> None:
    open_rebuild(f"journal:{journal}", f"duckdb:{path}", None, Options()).run()


def test_a_failure_comes_back(
    anywhere: Database | MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-19: what a defect made of a log, it makes of the record again; mended, it makes of it what the source has."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    anywhere.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    replica = make_replica(anywhere, tmp_path)

    def work_in_vain() -> None:
        with recorded(anywhere, tmp_path / "recorded"):
            replica.catch_up()
            anywhere.execute("DELETE FROM t WHERE id = 2")
            anywhere.execute("UPDATE t SET v = 'd' WHERE id = 3")
            replica.catch_up()
            replica.assert_equal()

    with monkeypatch.context() as defect:
        without_deletes(defect)
        with pytest.raises(AssertionError) as failure:
            work_in_vain()
    (journal,) = (tmp_path / "recorded").iterdir()
    assert f"cdc rebuild journal:{journal} duckdb:again.duckdb" in failure.value.__notes__[-1]
    wrong = rows(replica, replica.path)
    assert len(wrong) == 3
    anywhere.execute("DROP TABLE t")
    with monkeypatch.context() as defect:
        without_deletes(defect)
        for name in ("again", "and_again"):
            rebuild(tmp_path / f"{name}.duckdb", journal)
            assert rows(replica, tmp_path / f"{name}.duckdb") == wrong
    rebuild(tmp_path / "mended.duckdb", journal)
    assert rows(replica, tmp_path / "mended.duckdb") == [(1, "a"), (3, "d")]


def test_what_does_not_fail_leaves_nothing(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with recorded(database, tmp_path / "recorded") as recording:
        assert recording.path.exists()
    assert not recording.path.exists()
