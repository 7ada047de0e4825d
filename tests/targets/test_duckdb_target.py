"""The DuckDB target by itself: idempotence, atomicity, fencing, widening."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import (
    CdcError,
    CheckpointUnreadable,
    DiskFailed,
    HalfWritten,
    InvariantError,
    OperatorNeeded,
    TargetBusy,
    TargetDamaged,
    TargetFull,
    UsageError,
)
from cdc.faults import FaultLasting, FaultPassing, parse
from cdc.model.change import Op, Transactions
from cdc.model.parts import WHOLE, Condition, Part
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes, Reset, Segment, Truncate
from cdc.sources.gathering import FULL
from cdc.targets.duckdb import read_checkpoint
from cdc.targets.duckdb.connection import classify
from cdc.targets.duckdb.target import DuckDbTarget
from tests.model.batches import UNCHANGED, Row, batch, table

SCHEMA = table(2, (0,))
MEMORY = 128 << 20


def at(order: int) -> Checkpoint:
    return Checkpoint(Position(order, str(order)), "{}")


def transactions(orders: list[int]) -> Transactions:
    numbers = np.array(orders, dtype=np.int64)
    return Transactions(numbers, numbers, numbers, str)


def segment(changes: list[tuple[int, Op, Row | None, Row | None]], end: int | None) -> Segment:
    """Changes as (commit, op, before, after), up to a checkpoint."""
    orders = sorted({order for order, *_ in changes})
    made = batch(SCHEMA, [(op, old, new) for _, op, old, new in changes])
    made.transaction[:] = [orders.index(order) for order, *_ in changes]
    return Segment([Changes(made)], transactions(orders), at(end) if end is not None else None)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[DuckDbTarget]:
    made = DuckDbTarget(tmp_path / "t.duckdb", MEMORY)
    made.open()
    made.apply(Segment([Reset(SCHEMA)], Transactions.none(), at(10)))
    yield made
    made.close()


def rows(target: DuckDbTarget) -> list[tuple[object, ...]]:
    return target._file.connection.execute("SELECT * FROM s.t ORDER BY 1").fetchall()


HISTORY = [
    (20, Op.INSERT, None, ("1", "a")),
    (30, Op.INSERT, None, ("2", "b")),
    (30, Op.UPDATE, None, ("1", "c")),
    (40, Op.UPDATE, ("2", None), ("3", "d")),
    (50, Op.DELETE, ("1", None), None),
    (60, Op.INSERT, None, ("1", "e")),
    (60, Op.INSERT, None, ("2", "f")),
]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 7)), max_size=5))
def test_segments_may_overlap_and_come_again(
    tmp_path_factory: pytest.TempPathFactory, again: list[tuple[int, int]]
) -> None:
    """D-05, D-14: whatever lies before the checkpoint changes nothing, wherever the borders of segments are."""
    target = DuckDbTarget(tmp_path_factory.mktemp("d") / "t.duckdb", MEMORY)
    target.open()
    target.apply(Segment([Reset(SCHEMA)], Transactions.none(), at(10)))
    commits = [order for order, *_ in HISTORY]
    done = 0
    for start, length in [*again, (0, 7)]:
        first = min(start, done)
        changes = list(HISTORY[first : first + length + max(0, done - first)])
        changes += [c for c in HISTORY[first + len(changes) :] if changes and c[0] == changes[-1][0]]
        changes = [c for c in HISTORY[:first] if changes and c[0] == changes[0][0]] + changes
        if changes:
            target.apply(segment(changes, changes[-1][0] + 5))
            done = max(done, commits.index(changes[-1][0]) + sum(c == changes[-1][0] for c in commits))
    assert rows(target) == [("1", "e"), ("2", "f"), ("3", "d")]
    target.close()


def test_a_part_stays_invisible_until_its_end(target: DuckDbTarget, tmp_path: Path) -> None:
    """A-63: and vanishes if the end never comes."""
    target.apply(segment([(20, Op.INSERT, None, ("1", "a"))], None))
    target.close()
    assert target.open() == at(10)
    assert rows(target) == []
    target.apply(segment([(20, Op.INSERT, None, ("1", "a"))], None))
    target.apply(segment([(20, Op.UPDATE, None, ("1", "b"))], 25))
    assert rows(target) == [("1", "b")]
    target.close()
    assert read_checkpoint(str(tmp_path / "t.duckdb"), "cdc") == at(25)


def test_truncate_between_changes(target: DuckDbTarget) -> None:
    """D-25."""
    first = batch(SCHEMA, [(Op.INSERT, None, ("1", "a"))])
    second = batch(SCHEMA, [(Op.INSERT, None, ("1", "b"))])
    target.apply(Segment([Changes(first), Truncate(SCHEMA, 0, 1), Changes(second)], transactions([20]), at(25)))
    assert rows(target) == [("1", "b")]


def test_no_bytes_are_not_null(target: DuckDbTarget) -> None:
    """A-46: rows of a table without a key are distinguished by all their values, and NULL is not the empty value."""
    column = Column("c0", "bytea", LogicalType(Kind.BYTES), 1)
    schema = TableSchema(TableName("s", "keyless"), 2, (column,), full_before=True)
    target.apply(Segment([Reset(schema)], Transactions.none(), at(15)))
    come = batch(schema, [(Op.INSERT, None, (value,)) for value in ("\\x", None, "\\x00")])
    target.apply(Segment([Changes(come)], transactions([20]), at(25)))
    for order, gone in ((30, None), (40, "\\x")):
        target.apply(Segment([Changes(batch(schema, [(Op.DELETE, (gone,), None)]))], transactions([order]), at(order)))
        left = target._file.connection.execute("SELECT c0 FROM s.keyless ORDER BY 1").fetchall()
        assert left == [(b"",), (b"\0",)][order == 40 :]


def test_a_second_process_is_kept_out(target: DuckDbTarget, tmp_path: Path) -> None:
    """D-17: DuckDB's lock on the file is the lease."""
    code = (
        "import sys; from pathlib import Path; from cdc.targets.duckdb.target import DuckDbTarget; "
        "DuckDbTarget(Path(sys.argv[1]), 1 << 27).open()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "t.duckdb")], capture_output=True, text=True, check=False
    )
    assert "TargetBusy" in done.stderr
    assert "PID" in done.stderr


def test_a_checkpoint_that_somebody_else_moved_is_found(target: DuckDbTarget) -> None:
    """D-17: the number of the checkpoint is compared when it is written."""
    target._file.connection.execute("UPDATE _cdc.checkpoint SET sequence = sequence + 1")
    with pytest.raises(TargetBusy):
        target.apply(segment([(20, Op.INSERT, None, ("1", "a"))], 25))


def test_what_is_not_a_duckdb_file(tmp_path: Path) -> None:
    """E-12."""
    file = tmp_path / "notes.duckdb"
    file.write_text("not a database " * 1000)
    with pytest.raises(UsageError, match="not a DuckDB file"):
        DuckDbTarget(file, MEMORY).open()
    with pytest.raises(UsageError, match="no folder"):
        DuckDbTarget(tmp_path / "nowhere" / "x.duckdb", MEMORY).open()
    with pytest.raises(UsageError, match="is a folder"):
        DuckDbTarget(tmp_path, MEMORY).open()


def test_a_file_of_a_newer_duckdb(tmp_path: Path) -> None:
    """E-15: what DuckDB 1.4 says of a file of DuckDB 2, as any older one will of a newer one's."""
    said = (
        "IO Error: Trying to read a database file with version number 999, but we can only read versions between 64 "
        "and 67.\nThe database file was created with an newer version of DuckDB.\n\nNewer DuckDB version might "
        "introduce backward incompatible changes (possibly guarded by compatibility settings)."
    )
    found = classify(duckdb.IOException(said), tmp_path / "x.duckdb")
    assert isinstance(found, UsageError)
    assert "x.duckdb was made by a newer DuckDB than the one that is installed" in found.message


@pytest.mark.parametrize("copying", ["sleep 1.7 && exec /bin/cp", "echo 'no space' >&2; exit 1;"])
def test_a_copy_that_takes_long_or_fails(
    target: DuckDbTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copying: str
) -> None:
    """O51, E-01: there are signs of life meanwhile; a failure leaves nothing behind, and the target as it was."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "cp"
    program.write_text(f'#!/bin/sh\n{copying} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    signs: list[float] = []
    place = tmp_path / "copies"
    place.mkdir()

    def copy() -> None:
        target.back_up(place / "copy.duckdb", lambda: signs.append(0))

    if "exit" in copying:
        with pytest.raises(OperatorNeeded, match="no space"):
            copy()
        assert list(place.iterdir()) == []
    else:
        copy()
        assert len(signs) >= 2
        assert read_checkpoint(str(place / "copy.duckdb"), "") == target._state._stored.checkpoint
    target.apply(segment([(20, Op.INSERT, None, ("1", "a"))], 25))


def test_a_checkpoint_of_a_newer_version(target: DuckDbTarget, tmp_path: Path) -> None:
    """E-10."""
    target._file.connection.execute("UPDATE _cdc.checkpoint SET format = 99")
    target.close()
    with pytest.raises(CheckpointUnreadable, match="99"):
        target.open()
    target.close()


def test_a_large_merge_is_cut(target: DuckDbTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-12: no statement touches more rows than the limit."""
    monkeypatch.setattr("cdc.tables.rows.MERGE_ROWS", 10)
    target.apply(segment([(20, Op.INSERT, None, (str(i), "a")) for i in range(100)], 25))
    target.apply(
        segment(
            [
                (
                    30,
                    Op.UPDATE if i % 2 else Op.DELETE,
                    None if i % 2 else (str(i), None),
                    (str(i), "b") if i % 2 else None,
                )
                for i in range(100)
            ],
            35,
        )
    )
    assert len(rows(target)) == 50
    assert {value for _, value in rows(target)} == {"b"}


def test_keys_change_places_across_the_cuts(target: DuckDbTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-12, A-41: a key that one cut gives away is another's in the next, and values that the log left out go along."""
    monkeypatch.setattr("cdc.tables.rows.MERGE_ROWS", 1)
    target.apply(segment([(20, Op.INSERT, None, (str(i), f"value {i}")) for i in range(3)], 25))
    moves = [("0", "spare"), ("1", "0"), ("2", "1"), ("spare", "2")]
    target.apply(segment([(30, Op.UPDATE, (old, None), (new, UNCHANGED)) for old, new in moves], 35))
    assert rows(target) == [("0", "value 1"), ("1", "value 2"), ("2", "value 0")]


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    """D-10: the segment is rolled back, the message is clear, and it goes on once there is space."""
    import shutil  # noqa: PLC0415

    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:  # without the right to mount, a limit on the size of files says the same
        code = (
            "import resource, sys; from pathlib import Path; sys.path.insert(0, '.'); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20)); "
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "from tests.targets.test_duckdb_target import fill; fill(Path(sys.argv[1]))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(mount)], capture_output=True, text=True, check=False)
        assert "TargetFull" in done.stderr, done.stderr[-1500:]
    else:
        try:
            with pytest.raises(Exception, match="no space left"):
                fill(mount)
        finally:
            survivors = list(mount.iterdir())
            for file in survivors:
                shutil.copy(file, tmp_path / file.name)
            subprocess.run(["umount", str(mount)], check=True)
        mount = tmp_path
    target = DuckDbTarget(mount / "t.duckdb", MEMORY)
    assert target.open() is not None
    target.close()


def fill(folder: Path) -> None:
    """Write until the disk is full."""
    target = DuckDbTarget(folder / "t.duckdb", MEMORY)
    target.open()
    target.apply(Segment([Reset(SCHEMA)], Transactions.none(), at(10)))
    rng = np.random.default_rng(1)
    for number in range(1000):
        text = rng.bytes(400).hex()
        changes = [
            (20 + number, Op.INSERT, None, (f"{number}-{i}", f"{text}{i}{rng.bytes(40).hex()}")) for i in range(500)
        ]
        target.apply(segment(changes, 21 + number))  # type: ignore[arg-type]


def test_a_read_only_connection_sees_the_tables(target: DuckDbTarget, tmp_path: Path) -> None:
    """A user opens the file with any DuckDB once the pipeline has let go of it."""
    target.apply(segment([(20, Op.INSERT, None, ("1", "a"))], 25))
    target.close()
    with duckdb.connect(str(tmp_path / "t.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT * FROM s.t").fetchall() == [("1", "a")]


def test_blocks_that_a_copy_has_written_do_not_fill_the_memory(tmp_path: Path) -> None:
    """DuckDB would keep them until its memory is full: a large copy would need more than a small one."""
    target = DuckDbTarget(tmp_path / "t.duckdb", MEMORY)
    target.open()
    target.apply(Segment([Reset(SCHEMA)], Transactions.none(), at(10)))
    limit = target._file.ask("SELECT current_setting('memory_limit')")
    given = [(Op.INSERT, None, (str(number), os.urandom(120).hex())) for number in range(FULL)]
    copied = replace(batch(SCHEMA, given), copied=True)
    kept = []
    for _ in range(4):
        target.apply(Segment([Changes(copied)], Transactions.none(), at(10)))
        kept.append(target._file.ask("SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'BASE_TABLE'")[0][0])
    assert MEMORY // 16 < max(kept) <= MEMORY // 4
    assert target._file.ask("SELECT current_setting('memory_limit')") == limit
    assert target._file.ask("SELECT count(*) FROM s.t") == [(4 * FULL,)]
    target.close()


COPIED = [replace(batch(SCHEMA, [(Op.INSERT, None, ("1", "new")), (Op.INSERT, None, ("2", "new"))]), copied=True)]


@pytest.mark.parametrize("kind", ["raise", "fail"])
def test_a_replacement_that_fails_leaves_the_rows(
    target: DuckDbTarget, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """O4: between two transactions, what a replacement took out is there again, and it can be done once more."""
    target.apply(segment([(20, Op.INSERT, None, ("1", "a"))], 21))
    monkeypatch.setattr("cdc.faults._armed", parse(f"target.before_insert={kind}"))
    with pytest.raises(FaultPassing if kind == "raise" else FaultLasting):
        target.replace(SCHEMA, WHOLE, COPIED)
    assert rows(target) == [("1", "a")]
    target.replace(SCHEMA, WHOLE, COPIED)
    assert rows(target) == [("1", "new"), ("2", "new")]
    target.apply(segment([(30, Op.DELETE, ("1", None), None)], 31))
    assert rows(target) == [("2", "new")]


@pytest.mark.parametrize("kind", ["raise", "fail"])
def test_a_replacement_that_fails_inside_a_transaction(
    target: DuckDbTarget, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """O4: what was applied in part looks like something half replaced: only opening again is right."""
    target.apply(segment([(20, Op.INSERT, None, ("1", "a"))], 21))
    target.apply(segment([(30, Op.INSERT, None, ("3", "c"))], None))
    monkeypatch.setattr("cdc.faults._armed", parse(f"target.before_insert={kind}"))
    with pytest.raises(HalfWritten) as failed:
        target.replace(SCHEMA, WHOLE, COPIED)
    assert failed.value.retry
    target.close()
    checkpoint = target.open()
    assert checkpoint is not None
    assert checkpoint.position == at(21).position
    assert rows(target) == [("1", "a")]
    target.apply(segment([(30, Op.INSERT, None, ("3", "c"))], 31))
    assert rows(target) == [("1", "a"), ("3", "c")]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (duckdb.IOException('IO Error: Could not write file "x": Input/output error'), DiskFailed),
        (duckdb.TransactionException('Failed to commit: Could not fsync file "x": Input/output error'), DiskFailed),
        (duckdb.FatalException("FATAL Error: fsync failed!"), DiskFailed),
        (duckdb.TransactionException('Failed to commit: Could not write file "x": File too large'), TargetFull),
        (duckdb.IOException('Could not write file "x": No space left on device'), TargetFull),
        (duckdb.IOException('Could not read enough bytes from file "x": attempted to read 8 bytes'), TargetDamaged),
        (duckdb.InternalException("INTERNAL Error: that must not be"), InvariantError),
    ],
)
def test_what_duckdb_says_of_a_disk(error: duckdb.Error, kind: type[CdcError], tmp_path: Path) -> None:
    """O14, O43: an error of the disk is no defect of this program, which nobody is to report."""
    meant = classify(error, tmp_path / "x.duckdb")
    assert type(meant) is kind
    assert str(tmp_path / "x.duckdb") in meant.message
    assert ("report" in (meant.hint or "")) == (kind is InvariantError)


def test_a_condition_that_cannot_be_decided(target: DuckDbTarget) -> None:
    """O3: it is a mistake of who wrote it, and the target goes on; but DuckDB ends a transaction that is open."""
    target.apply(segment([(20, Op.INSERT, None, ("1", "a"))], 21))
    part = Part(condition=Condition("CAST(c1 AS INT) = 1", "postgres"))
    for wrong in (part, Part(condition=Condition("nothing = 1", "postgres"))):
        with pytest.raises(UsageError):
            target.keys(SCHEMA, wrong)
    assert target.keys(SCHEMA, Part(condition=Condition("c1 = 'a'", "postgres"))) == {("1",)}
    target.apply(segment([(30, Op.INSERT, None, ("3", "c"))], None))
    with pytest.raises(HalfWritten):
        target.keys(SCHEMA, part)
    target.close()
    target.open()
    target.apply(segment([(30, Op.INSERT, None, ("3", "c"))], 31))
    assert rows(target) == [("1", "a"), ("3", "c")]
