"""What a source does, the target has: row by row, transaction by transaction, shape by shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from cdc.errors import CdcError, SchemaChangeUnsupported, TablesHeld, TargetDrift, UsageError
from integration.conftest import Database, Replica, make_replica

LONG = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) i)"  # 6,400 characters, hard to compress


def test_what_was_there_and_what_comes(database: Database, replica: Replica) -> None:
    """A-05, C-09, D-22: rows from before and after, empty tables too, over several runs."""
    database.execute(
        """
        CREATE TABLE things (id bigint PRIMARY KEY, name text, price numeric(10,2));
        CREATE TABLE nothing (id int PRIMARY KEY);
        INSERT INTO things SELECT i, 'thing ' || i, i * 1.25 FROM generate_series(1, 1000) i;
        """
    )
    replica.catch_up()
    replica.assert_equal()
    for _ in range(3):
        database.execute(
            """
            UPDATE things SET price = price + 1 WHERE id % 10 = 0;
            DELETE FROM things WHERE id IN (SELECT id FROM things ORDER BY random() LIMIT 20);
            INSERT INTO things SELECT max(id) + 1, NULL, 0 FROM things;
            """
        )
        replica.catch_up()
        replica.assert_equal()


def test_nothing_of_what_is_rolled_back_arrives(database: Database, replica: Replica) -> None:
    """A-60, A-61, A-62: transactions and savepoints that are taken back leave no trace."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    replica.catch_up()
    database.execute(
        """
        BEGIN; INSERT INTO t SELECT i, 'kept' FROM generate_series(1, 400) i;
        SAVEPOINT a; INSERT INTO t SELECT i, 'gone' FROM generate_series(401, 800) i; UPDATE t SET v = 'gone';
        ROLLBACK TO a; INSERT INTO t SELECT i, 'kept' FROM generate_series(801, 805) i; COMMIT;
        BEGIN; DELETE FROM t; ROLLBACK;
        """
    )
    replica.catch_up()
    replica.assert_equal()
    assert replica.query("SELECT count(*), count(DISTINCT v) FROM t") == [(405, 1)]


def test_prepared_transactions_appear_when_they_are_committed(database: Database, replica: Replica) -> None:
    """A-65: across restarts of the pipeline; what is rolled back never appears."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica.catch_up()
    database.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'kept'")
    database.execute("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'dropped'")
    database.execute("INSERT INTO t VALUES (3)")
    replica.catch_up()
    assert replica.query("SELECT id FROM t") == [(3,)]
    database.execute("COMMIT PREPARED 'kept'")
    database.execute("ROLLBACK PREPARED 'dropped'")
    replica.catch_up()
    assert replica.query("SELECT id FROM t ORDER BY id") == [(1,), (3,)]


def test_values_that_the_log_leaves_out_survive(database: Database, replica: Replica) -> None:
    """A-38, A-39, A-41: an unchanged TOAST value through updates, changes of key, and several changes in one batch."""
    database.execute(
        f"""
        CREATE TABLE t (id int PRIMARY KEY, big text, v int);
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
        INSERT INTO t SELECT i, i || {LONG}, 0 FROM generate_series(1, 10) i;
        """
    )
    replica.catch_up()
    database.execute(
        f"""
        UPDATE t SET v = 1 WHERE id = 1;
        UPDATE t SET id = 20 WHERE id = 2;
        UPDATE t SET id = 30 WHERE id = 3; UPDATE t SET v = 3 WHERE id = 30; UPDATE t SET id = 3 WHERE id = 30;
        INSERT INTO t VALUES (11, 'new' || {LONG}, 0); UPDATE t SET v = 2 WHERE id = 11; UPDATE t SET v = 3 WHERE id = 11;
        UPDATE t SET big = 'other' || {LONG} WHERE id = 4; UPDATE t SET v = 9 WHERE id = 4;
        DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 'again' || {LONG}, 1); UPDATE t SET v = 4 WHERE id = 5;
        UPDATE t SET big = NULL WHERE id = 6; UPDATE t SET v = 5 WHERE id = 6;
        """
    )
    replica.catch_up()
    replica.assert_equal()


def test_full_identity_gives_what_the_new_row_leaves_out(database: Database, replica: Replica) -> None:
    """A-40: the log says `unchanged` even then; the value is in the old row."""
    database.execute(
        f"""
        CREATE TABLE t (id int PRIMARY KEY, big text, v int); ALTER TABLE t REPLICA IDENTITY FULL;
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
        INSERT INTO t SELECT i, i || {LONG}, 0 FROM generate_series(1, 5) i;
        """
    )
    replica.catch_up()
    database.execute("UPDATE t SET v = v + 1; UPDATE t SET id = id + 100 WHERE id = 2; DELETE FROM t WHERE id = 3")
    replica.catch_up()
    replica.assert_equal()


def test_keys_that_move_and_swap(database: Database, replica: Replica) -> None:
    """A-37, D-03, D-04: chains, swaps inside one statement, reuse of a key, in one batch."""
    database.execute(
        """
        CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
        ALTER TABLE t REPLICA IDENTITY FULL;
        CREATE TABLE u (a int, b text, v text, PRIMARY KEY (a, b));
        CREATE UNIQUE INDEX by_b ON u (b, a); ALTER TABLE u REPLICA IDENTITY USING INDEX by_b;
        INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO u VALUES (1, 'x', 'p'), (2, 'y', 'q');
        """
    )
    replica.catch_up()
    database.execute(
        """
        UPDATE t SET id = 3 - id WHERE id < 3;
        UPDATE t SET id = id % 3 + 1;
        BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'again'); UPDATE t SET v = 'twice' WHERE id = 1; COMMIT;
        UPDATE u SET a = 10 WHERE a = 1; UPDATE u SET a = 1, b = 'x' WHERE a = 2; UPDATE u SET v = 'z' WHERE a = 10;
        INSERT INTO u VALUES (5, 'n', 'm'); DELETE FROM u WHERE a = 5;
        """
    )
    replica.catch_up()
    replica.assert_equal()


def test_rows_without_a_key(database: Database, tmp_path: Path) -> None:
    """A-35, A-46: with FULL, equal rows are counted; without, inserts and truncates only, and only if asked."""
    database.execute(
        """
        CREATE TABLE counted (a int, b text); ALTER TABLE counted REPLICA IDENTITY FULL;
        CREATE TABLE appended (a int);
        INSERT INTO counted SELECT i % 3, 'x' FROM generate_series(1, 12) i; INSERT INTO counted VALUES (NULL, NULL);
        INSERT INTO appended VALUES (1);
        """
    )
    plain = make_replica(database, tmp_path)
    plain.catch_up()
    assert plain.query("SELECT count(*) FROM information_schema.tables WHERE table_name = 'appended'") == [(0,)]
    database.execute(
        """
        DELETE FROM counted WHERE ctid = (SELECT min(ctid) FROM counted WHERE a = 1);
        UPDATE counted SET b = 'y' WHERE a = 2; UPDATE counted SET a = 7 WHERE a IS NULL;
        INSERT INTO counted VALUES (1, 'x'), (1, 'x'); INSERT INTO appended VALUES (2);
        UPDATE appended SET a = 3 WHERE a = 2; DELETE FROM appended WHERE a = 1;
        """
    )  # none of the application's own statements fails
    plain.catch_up()
    assert [c for c in plain.compare() if not c.equal and c.target_rows is not None] == []
    with_keyless = make_replica(database, tmp_path, include_keyless=True)
    with pytest.raises(CdcError):  # the name is taken by the first pipeline
        Replica(database, tmp_path / "other.duckdb", with_keyless.options).catch_up()


def test_keyless_tables_follow_inserts_and_truncates(database: Database, tmp_path: Path) -> None:
    """A-35: the application's UPDATE goes on working, and is not seen."""
    database.execute("CREATE TABLE log (a int); INSERT INTO log VALUES (1)")
    replica = make_replica(database, tmp_path, include_keyless=True)
    replica.catch_up()
    database.execute("INSERT INTO log VALUES (2); UPDATE log SET a = 5 WHERE a = 2")
    replica.catch_up()
    assert replica.query("SELECT a FROM log ORDER BY a") == [(1,), (2,)]
    database.execute("TRUNCATE log; INSERT INTO log VALUES (9)")
    replica.catch_up()
    assert replica.query("SELECT a FROM log") == [(9,)]


def test_truncate_keeps_its_place(database: Database, replica: Replica) -> None:
    """A-43, D-25: several tables at once, before and after changes of the same transaction."""
    database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY REFERENCES a);
        INSERT INTO a SELECT i, i FROM generate_series(1, 10) i; INSERT INTO b SELECT i FROM generate_series(1, 10) i;
        """
    )
    replica.catch_up()
    database.execute(
        """
        BEGIN; UPDATE a SET v = 0; TRUNCATE a, b RESTART IDENTITY CASCADE; INSERT INTO a VALUES (1, 5), (2, 6);
        INSERT INTO b VALUES (1); TRUNCATE b; INSERT INTO b VALUES (2); DELETE FROM a WHERE id = 1; COMMIT;
        """
    )
    replica.catch_up()
    replica.assert_equal()


def test_partitions_are_one_table(database: Database, replica: Replica) -> None:
    """A-44: rows that move between partitions, partitions with another order of columns, new partitions."""
    database.execute(
        """
        CREATE TABLE p (id int, region int, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
        CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
        CREATE TABLE p2 (v text, region int NOT NULL, id int NOT NULL, PRIMARY KEY (id, region));
        ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
        INSERT INTO p SELECT i, 1 + i % 2, 'v' || i FROM generate_series(1, 100) i;
        """
    )
    replica.catch_up()
    replica.assert_equal()
    database.execute(
        """
        UPDATE p SET region = 3 - region WHERE id < 50; UPDATE p SET v = 'w' WHERE id > 90;
        CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3); INSERT INTO p VALUES (1000, 3, 'new'); DELETE FROM p WHERE id = 7;
        """
    )
    replica.catch_up()
    replica.assert_equal()
    assert [str(entry.table) for entry in replica.compare()] == ["public.p"]


def test_a_transaction_with_changes_of_shape(database: Database, replica: Replica) -> None:
    """A-47, A-48, A-50: each row in the shape in force; defaults for the rows that were there; renames keep values."""
    database.execute(
        """
        CREATE TABLE t (id int PRIMARY KEY, a text, b int);
        INSERT INTO t SELECT i, 'a' || i, i FROM generate_series(1, 100) i;
        """
    )
    replica.catch_up()
    database.execute(
        """
        BEGIN;
        INSERT INTO t VALUES (101, 'x', 1);
        ALTER TABLE t ADD COLUMN w int DEFAULT 7, ADD COLUMN n text; INSERT INTO t VALUES (102, 'y', 2, 8, 'n');
        ALTER TABLE t RENAME a TO aa; UPDATE t SET aa = 'renamed' WHERE id = 1;
        ALTER TABLE t ALTER b TYPE bigint; UPDATE t SET b = 5000000000 WHERE id = 2;
        ALTER TABLE t DROP COLUMN w; INSERT INTO t VALUES (103, 'z', 3, 'm');
        COMMIT;
        ALTER TABLE t ADD COLUMN arr int[] DEFAULT '{1,2}', ADD COLUMN j jsonb DEFAULT '{"k": "v\\"w"}';
        UPDATE t SET n = 'after' WHERE id = 3;
        """
    )
    replica.catch_up()
    replica.assert_equal()


def test_renamed_and_moved_tables(database: Database, replica: Replica) -> None:
    """A-50: a table's identity is its oid, not its name; columns that swap names keep their values."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text); INSERT INTO t VALUES (1, 'a', 'b'); CREATE SCHEMA other"
    )
    replica.catch_up()
    database.execute(
        """
        ALTER TABLE t RENAME TO t2; INSERT INTO t2 VALUES (2, 'c', 'd');
        ALTER TABLE t2 SET SCHEMA other; INSERT INTO other.t2 VALUES (3, 'e', 'f');
        BEGIN; ALTER TABLE other.t2 RENAME a TO x; ALTER TABLE other.t2 RENAME b TO a; ALTER TABLE other.t2 RENAME x TO b;
        INSERT INTO other.t2 VALUES (4, 'g', 'h'); COMMIT;
        """
    )
    replica.catch_up()
    replica.assert_equal()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t ALTER v TYPE text USING 'v' || v",
        "ALTER TABLE t ADD COLUMN r float8 DEFAULT random()",
        "ALTER TABLE t DROP COLUMN s; ALTER TABLE t ADD COLUMN s text",
    ],
)
def test_a_change_that_the_log_does_not_carry(database: Database, replica: Replica, change: str) -> None:
    """A-48, A-49, A-50: existing rows were rewritten without an event, so they are compared, or copied again."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int, s text); INSERT INTO t VALUES (1, 1, 'a')")
    replica.catch_up()
    database.execute(f"INSERT INTO t VALUES (2, 2, 'b'); {change}; INSERT INTO t (id) VALUES (3)")
    replica.catch_up()
    replica.assert_equal()


@pytest.mark.parametrize("row", ["", "; INSERT INTO t (id) VALUES (3)"])
def test_a_change_that_the_log_does_not_carry_may_stop(database: Database, tmp_path: Path, row: str) -> None:
    """P15: for those who want one table to end the run."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)")
    replica = make_replica(database, tmp_path, holds_tables=False)
    replica.catch_up()
    database.execute(f"ALTER TABLE t ALTER v TYPE text USING 'v' || v{row}")
    with pytest.raises(SchemaChangeUnsupported, match=r"public\.t"):
        replica.catch_up()


def test_a_column_that_is_dropped_and_added_with_another_type(database: Database, replica: Replica) -> None:
    """A-50: that is not a change of type: the old values go."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int, s text); INSERT INTO t VALUES (1, 1, 'a')")
    replica.catch_up()
    database.execute(
        "INSERT INTO t VALUES (2, 2, 'b'); ALTER TABLE t DROP COLUMN s, ADD COLUMN s date; "
        "INSERT INTO t VALUES (3, 3, '2024-01-01')"
    )
    replica.catch_up()
    replica.assert_equal()


def test_generated_columns_are_left_out_of_both_paths(database: Database, replica: Replica) -> None:
    """A-45: the stream does not carry them, so the copy must not either."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED); "
        "INSERT INTO t (id, v) VALUES (1, 1)"
    )
    replica.catch_up()
    database.execute("INSERT INTO t (id, v) VALUES (2, 2); UPDATE t SET v = 5 WHERE id = 1")
    replica.catch_up()
    assert replica.query("SELECT * FROM t ORDER BY id") == [(1, 5), (2, 2)]


def test_one_large_transaction_passes_in_parts(database: Database, tmp_path: Path) -> None:
    """A-63, D-12: larger than a segment, with a truncate and a change of shape inside; atomic in the target."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 9) i"
    )
    replica = make_replica(database, tmp_path, segment_bytes=1 << 18, queue_bytes=1 << 20)
    replica.catch_up()
    database.execute(
        """
        BEGIN; UPDATE t SET v = 'y'; INSERT INTO t SELECT i, repeat('z', 20) FROM generate_series(10, 30000) i;
        UPDATE t SET v = 'w' WHERE id % 3 = 0; ALTER TABLE t ADD COLUMN n int DEFAULT 1; UPDATE t SET id = -id WHERE id % 7 = 0;
        DELETE FROM t WHERE id > 25000; INSERT INTO t SELECT i, 'again', 2 FROM generate_series(40000, 60000) i; COMMIT;
        """
    )
    replica.catch_up()
    replica.assert_equal()


def test_hostile_names(database: Database, replica: Replica) -> None:
    """E-06: identifiers are quoted wherever they go."""
    database.execute(
        """
        CREATE SCHEMA "se""lect; drop table x--";
        CREATE TABLE "se""lect; drop table x--"."we`ird '%s' $1 {}" (
            "order" int, "a b" text, "Ünï😀" int, "new\nline" text, "--" int, "c.d" text, "value_" text, "s" int, "t" int,
            PRIMARY KEY ("order", "a b"));
        INSERT INTO "se""lect; drop table x--"."we`ird '%s' $1 {}" VALUES (1, 'a', 2, 'n', 3, 'd', 'v', 1, 2);
        """
    )
    replica.catch_up()
    replica.assert_equal()
    database.execute(
        """
        UPDATE "se""lect; drop table x--"."we`ird '%s' $1 {}" SET "order" = 5, "--" = 9, "value_" = NULL, "t" = 4;
        INSERT INTO "se""lect; drop table x--"."we`ird '%s' $1 {}" VALUES (2, 'b');
        ALTER TABLE "se""lect; drop table x--"."we`ird '%s' $1 {}" ADD COLUMN "new ""col" int DEFAULT 4;
        DELETE FROM "se""lect; drop table x--"."we`ird '%s' $1 {}" WHERE "order" = 2;
        UPDATE "se""lect; drop table x--"."we`ird '%s' $1 {}" SET "c.d" = 'x';
        """
    )
    replica.catch_up()
    replica.assert_equal()


def test_names_that_differ_in_case_only_are_refused(database: Database, replica: Replica) -> None:
    """E-06, E-07: DuckDB would put both into one."""
    database.execute('CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE "T" (id int PRIMARY KEY)')
    with pytest.raises(UsageError, match="case"):
        replica.catch_up()


def test_a_default_does_not_replace_a_null(database: Database, replica: Replica) -> None:
    """D-24."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int DEFAULT 5); INSERT INTO t VALUES (1, NULL)")
    replica.catch_up()
    database.execute("INSERT INTO t VALUES (2, NULL); UPDATE t SET v = NULL WHERE id = 1")
    replica.catch_up()
    assert replica.query("SELECT v FROM t") == [(None,), (None,)]


def test_a_table_that_is_not_ours_is_not_touched(database: Database, replica: Replica) -> None:
    """C-13."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with duckdb.connect(str(replica.path)) as connection:
        connection.execute("CREATE SCHEMA public; CREATE TABLE public.t (x int); INSERT INTO public.t VALUES (42)")
    with pytest.raises(UsageError, match="did not make"):
        replica.catch_up()
    assert replica.query("SELECT x FROM public.t") == [(42,)]


@pytest.mark.parametrize(
    "harm",
    [
        "ALTER TABLE t DROP COLUMN v",
        "ALTER TABLE t ADD COLUMN extra int",
        "ALTER TABLE t ALTER v TYPE bigint",
        "DROP TABLE t",
        "DELETE FROM t WHERE id = 1",
    ],
)
def test_a_target_that_somebody_changed_is_found_out(database: Database, replica: Replica, harm: str) -> None:
    """A-42, D-08: a named error, and nothing else is harmed. A table that lacks rows is set right, any other is held."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)")
    replica.catch_up()
    with duckdb.connect(str(replica.path)) as connection:
        connection.execute(f"SET search_path = 'public'; {harm}")
    database.execute("UPDATE t SET v = 9 WHERE id = 1")
    with pytest.raises(TargetDrift, match=r"public\.t"):
        replace(replica, options=replace(replica.options, holds_tables=False)).catch_up()
    if harm.startswith("DELETE"):
        replica.catch_up()
        replica.assert_equal()
    else:
        with pytest.raises(TablesHeld, match=r"public\.t"):
            replica.catch_up()


def test_a_table_that_comes_into_the_selection(database: Database, tmp_path: Path) -> None:
    """C-07: it is copied at a later place in the log than the others, which go on as if nothing happened."""
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, v int); "
        "INSERT INTO a VALUES (1, 1); INSERT INTO b SELECT i, i FROM generate_series(1, 500) i"
    )
    make_replica(database, tmp_path, "a").catch_up()
    database.execute("UPDATE a SET v = 2; UPDATE b SET v = v + 1")
    both = make_replica(database, tmp_path, "a", "b")
    both.catch_up()
    both.assert_equal()
    database.execute("UPDATE a SET v = 3; UPDATE b SET v = v + 1 WHERE id < 10; DELETE FROM b WHERE id > 490")
    both.catch_up()
    both.assert_equal()
    alone = make_replica(database, tmp_path, "a")
    alone.catch_up()
    database.execute("UPDATE a SET v = 4; DELETE FROM b")
    alone.catch_up()
    alone.assert_equal()
    assert alone.query("SELECT count(*) FROM b") == [(490,)]
    both.catch_up()
    both.assert_equal()
