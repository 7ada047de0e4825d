"""History and soft delete in the DuckDB target, against what the table was after every commit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cdc.model.change import Op, Transactions
from cdc.model.parts import Part
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column
from cdc.model.segment import Changes, Gap, Reset, Segment, Step
from cdc.target import Mode
from cdc.targets.duckdb.target import DuckDbTarget
from tests.model.batches import Row, batch, table
from tests.targets.random_history import Work, time_of

MEMORY = 128 << 20


def opened(path: Path, mode: Mode) -> DuckDbTarget:
    target = DuckDbTarget(path, MEMORY, mode)
    target.open()
    return target


def apply(target: DuckDbTarget, path: Path, segments: list[Segment], work: Work, mode: Mode) -> DuckDbTarget:
    """Apply segments; now and then the process dies before the end of one, or one comes again (D-05)."""
    while segments:
        if work.rng.random() < 0.1:
            for segment in segments[:-1]:
                target.apply(segment)
            target.close()
            target = opened(path, mode)
        for segment in segments:
            target.apply(segment)
        if len(segments) > 1 or not len(segments[0].transactions) or work.rng.random() < 0.8:
            break
    return target


def everything(work: Work) -> Iterator[list[Segment]]:
    yield [*work.copy()]
    for _ in range(work.rng.randint(1, 6)):
        yield work.segment()
        if work.rng.random() < 0.15:
            for segment in work.copy(keep=True):
                yield [segment]


def as_of(target: DuckDbTarget, place: object, columns: Sequence[Column]) -> Counter[Row]:
    """What the macro says that some columns were."""
    names = ", ".join(f'"{column.name}"' for column in columns)
    return Counter(target._file.connection.execute(f"SELECT {names} FROM s.t_as_of(?)", [place]).fetchall())


def last_before(work: Work, time: datetime) -> int:
    """The last place whose time, the largest of those committed up to there, is no later."""
    reached, found = datetime.min.replace(tzinfo=UTC), -1
    for order in sorted(work.states):
        if order in work.commits:
            reached = max(reached, clock(order))
        if reached > time:
            break
        found = order
    return found


def clock(order: int) -> datetime:
    return datetime.fromtimestamp(int(time_of(np.array(order))) / 1e6, UTC)


@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 1 << 32), st.booleans(), st.booleans())
def test_as_of_every_commit(tmp_path_factory: pytest.TempPathFactory, seed: int, keyed: bool, full: bool) -> None:
    """A-41, A-46, D-03, D-04, D-05, D-25, H1: as of each commit the table is what it was, nothing is folded, and
    times never go back where clocks do."""
    path = tmp_path_factory.mktemp("h") / "t.duckdb"
    rng = random.Random(seed)
    work = Work(rng, keyed, full)
    target = opened(path, Mode.HISTORY)
    for segments in everything(work):
        target = apply(target, path, segments, work, Mode.HISTORY)
    for order, rows in work.states.items():
        columns = [column for column in work.schema.columns if not rows or column.identity in rows[0]]
        expected = Counter(tuple(row[column.identity] for column in columns) for row in rows)
        assert as_of(target, work.texts[order], columns) == expected
    for order in rng.sample(sorted(work.commits), min(3, len(work.commits))):
        place = target._file.connection.execute("SELECT _cdc_history.place(?)", [clock(order)]).fetchone()
        assert place == (last_before(work, clock(order)),)
    current = target._file.connection.execute("SELECT * FROM s.t").fetchall()
    assert Counter(current) == Counter(tuple(row) for row in work.rows)
    logged = target._file.connection.execute("SELECT count(*) FROM s_history.t WHERE _cdc_op <> 'copy'").fetchone()
    assert logged == (work.logged,)
    copied = target._file.connection.execute("SELECT count(*) FROM s_history.t WHERE _cdc_op = 'copy'").fetchone()
    assert copied == (work.copied_new,)
    target.close()


@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 1 << 32), st.booleans())
def test_deleted_rows_stay(tmp_path_factory: pytest.TempPathFactory, seed: int, full: bool) -> None:
    """A-41, D-03, D-04, D-05, D-25, H9: rows are marked with where they went, and a key that comes back is
    not; a column that comes later is null in them."""
    path = tmp_path_factory.mktemp("s") / "t.duckdb"
    work = Work(random.Random(seed), full=full)
    target = opened(path, Mode.SOFT_DELETE)
    for segments in everything(work):
        target = apply(target, path, segments, work, Mode.SOFT_DELETE)
    names = ", ".join(f'"{column.name}"' for column in work.schema.columns)
    found = target._file.connection.execute(f"SELECT {names}, _cdc_deleted_position FROM s.t").fetchall()
    expected = [(*row, None) for row in work.rows]
    expected += [(*row, position) for row, position in work.gone.values()]
    assert Counter(found) == Counter(expected)
    marked = target._file.connection.execute(
        "FROM s.t WHERE (_cdc_deleted_at IS NULL) <> (_cdc_deleted_position IS NULL)"
    )
    assert marked.fetchall() == []
    target.close()


def test_a_copy_that_is_coming_when_changes_are_skipped_again(tmp_path: Path) -> None:
    """H4: its end is no end of what is skipped, in another process either; only a copy that begins later is."""
    schema, path = table(1, (0,)), tmp_path / "t.duckdb"
    rows = replace(batch(schema, [(Op.INSERT, None, ("1",))]), copied=True)

    def segment(order: int, *steps: Step) -> Segment:
        places = np.array([order], dtype=np.int64)
        transactions = Transactions(places, places, places * 1_000_000, str)
        return Segment(list(steps), transactions, Checkpoint(Position(order + 1, str(order + 1)), "{}"))

    target = opened(path, Mode.HISTORY)
    for before in (
        segment(10, Reset(schema), Changes(rows)),
        segment(20, Gap(schema, "x", 0), Reset(schema, True, 0)),
        segment(30, Gap(schema, "again", 0)),
    ):
        target.apply(before)
    target.close()
    target = opened(path, Mode.HISTORY)
    target.copied(schema)
    target.apply(segment(40))
    target.apply(segment(50, Reset(schema, True, 0)))
    target.replace(schema, Part(), [rows])
    target.copied(schema)
    target.apply(segment(60))
    known = []
    for place in ("10", "20", "30", "40", "60"):
        try:
            known.append(bool(as_of(target, place, schema.columns)))
        except duckdb.InvalidInputException as error:
            known.append("it is not known" not in str(error))
    target.close()
    assert known == [True, False, False, False, True]


def by_parts(work: Work, target: DuckDbTarget) -> None:
    """The table is copied part by part: each part is read between two transactions, changes go on meanwhile."""
    target.copy_parts(work.schema)
    parts = [Part(upto=("1",)), Part(after=("1",), upto=("3",)), Part(after=("3",))]
    borders = [(None, "1"), ("1", "3"), ("3", None)]
    for part, (after, upto) in zip(parts, borders, strict=True):
        for segment in work.segment(steady=True):
            target.apply(segment)
        rows = [row for row in work.rows if (after or "") < str(row[0]) <= (upto or "9")]
        target.replace(work.schema, part, [work.copied(rows)] if rows else [])
    while missed := target.take_missed(work.schema):
        keys = {key for (key,) in missed}
        rows = [row for row in work.rows if row[0] in keys]
        target.replace(work.schema, Part(keys=tuple(missed)), [work.copied(rows)] if rows else [])
    target.copied(work.schema)
    work.forget_states()


@pytest.mark.parametrize("mode", [Mode.HISTORY, Mode.SOFT_DELETE])
@settings(max_examples=10, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 1 << 32))
def test_a_copy_part_by_part(tmp_path_factory: pytest.TempPathFactory, mode: Mode, seed: int) -> None:
    """A-42, C-03: what was missing or wrong before is right after it, and from then on as of every commit."""
    path = tmp_path_factory.mktemp("p") / "t.duckdb"
    work = Work(random.Random(seed))
    target = opened(path, mode)
    for segments in everything(work):
        target = apply(target, path, segments, work, mode)
    for _ in range(3):  # that nobody saw
        work.transaction([], 0, steady=True)
    by_parts(work, target)
    names = ", ".join(f'"{column.name}"' for column in work.schema.columns)
    now = f"SELECT {names} FROM s.t" + (" WHERE _cdc_deleted_at IS NULL" if mode is Mode.SOFT_DELETE else "")
    assert Counter(target._file.connection.execute(now).fetchall()) == Counter(map(tuple, work.rows))
    for _ in range(2):
        for segment in work.segment(steady=True):
            target.apply(segment)
    assert Counter(target._file.connection.execute(now).fetchall()) == Counter(map(tuple, work.rows))
    if mode is Mode.HISTORY:
        for order, rows in work.states.items():
            columns = work.schema.columns
            expected = Counter(tuple(row[column.identity] for column in columns) for row in rows)
            assert as_of(target, work.texts[order], columns) == expected
        versions = target._file.connection.execute(
            "SELECT c0, _cdc_valid_from, coalesce(_cdc_valid_to, 9000000000) FROM s_history.t "
            "WHERE _cdc_valid_to IS NULL OR _cdc_valid_to > _cdc_valid_from ORDER BY ALL"
        ).fetchall()
        assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(versions)), "a key has two rows at one place"
    target.close()
