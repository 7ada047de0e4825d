"""Times and positions in a journal: the same moments as a history has, and nothing where nothing is known."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cdc.errors import UsageError
from cdc.journal.folder import Folder
from cdc.journal.moment import find_end, find_start, first_state
from cdc.journal.writer import Writer
from cdc.model.change import Op, Transactions
from cdc.model.moment import Moment
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Changes, Reset, Segment
from cdc.sources.postgres.position import write_lsn
from tests.model.batches import batch, table

DAY = 86_400_000_000
BEGIN = 1_735_689_600_000_000  # 2025-01-01
SCHEMA = table(1, (0,))
# Where each commit is, and days after the beginning by the source's clock, which steps, and sessions may set.
COMMITS = {0x20: 1, 0x30: 2, 0x38: 3, 0x40: -5000, 0x50: 4, 0x60: 2, 0x70: 10}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A copy at 0/10 of the first day, and commits, some of them in one record."""
    folder = Folder(tmp_path)
    writer = Writer(folder, "cdc", "postgresql").open()
    rows = Changes(replace(batch(SCHEMA, [(Op.INSERT, None, ("1",))]), copied=True))
    for steps, at in (([], 0), ([Reset(SCHEMA)], 0x10), ([rows], 0x10)):
        writer.append(Segment(list(steps), Transactions.none(), _at(at), read_at=BEGIN + 500_000))
    for orders in ([0x20], [0x30, 0x38], [0x40, 0x50], [0x60], [0x70]):
        times = np.array([BEGIN + COMMITS[order] * DAY for order in orders])
        places = np.array(orders, dtype=np.int64)
        changes = replace(
            batch(SCHEMA, [(Op.INSERT, None, (str(order),)) for order in orders]),
            transaction=np.arange(len(orders), dtype=np.int32),
        )
        writer.append(Segment([Changes(changes)], Transactions(places, places, times, write_lsn), _at(orders[-1] + 8)))
    writer.close()
    return folder


def _at(order: int) -> Checkpoint:
    return Checkpoint(Position(order, write_lsn(order)), "{}")


def last(folder: Folder, until: str) -> int:
    """The place of the last commit up to a moment; 0x10 for the copy."""
    end = find_end(folder, Moment.parse(until)).position.order
    return max(order for order in (0x10, *COMMITS) if order <= end)


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("2025-01-01", 0x10),  # H6: between the copy and the first commit
        ("0/10", 0x10),
        ("0/1F", 0x10),
        ("2025-01-02", 0x20),
        ("2025-01-01 19:00:00-05", 0x20),
        ("@1735776000", 0x20),
        ("0/20", 0x20),
        ("0/2F", 0x20),
        ("2025-01-03", 0x30),
        ("0/30", 0x30),
        ("2025-01-04", 0x40),  # the one of long ago comes behind
        ("2025-01-05", 0x60),
        ("2025-01-10 23:59", 0x60),
        ("2025-06-01", 0x70),
        ("0/70", 0x70),
        ("0/78", 0x70),
    ],
)
def test_until(folder: Folder, until: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """H1, H2, H6: by the largest time so far, in UTC wherever the machine is; a position means with that commit."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert last(folder, until) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("until", "said"),
    [
        ("2024-12-31 23:59:59", "does not reach 2024-12-31 23:59:59.* begins at 0/10, 2025-01-01 00:00:00"),
        ("2015-01-01", "begins at 0/10, 2025-01-01 00:00:00"),
        ("0/F", "does not reach 0/F. It begins at 0/10"),
        ("0/79", "does not reach 0/79"),
        ("FFFFFFFF/FFFFFFFF", "does not reach"),
        ("0-1-5", "does not reach 0-1-5"),
        ("2999-01-01", "in the future"),
        ("2026", "neither a time nor a position"),
        ("1735776000", "neither a time nor a position"),
    ],
)
def test_what_is_not_known_is_refused(folder: Folder, until: str, said: str) -> None:
    """O31, H3: before the copy, behind the end, and what is no moment."""
    with pytest.raises(UsageError, match=said):
        find_end(folder, Moment.parse(until))
    if "begins" not in said:
        with pytest.raises(UsageError, match=said):
            find_start(folder, Moment.parse(until))


@pytest.mark.parametrize(
    ("begin", "record", "skip"),
    [("2025-01-02", 3, 0), ("2025-01-04", 4, 1), ("2025-01-05", 5, 1), ("2025-01-06", 7, 0)],
)
def test_from(folder: Folder, begin: str, record: int, skip: int) -> None:
    """H1: a tail begins with the first commit that is as late, so that it goes on where `--until` ends."""
    start = find_start(folder, Moment.parse(begin))
    assert (start.record, start.skip) == (record, skip)


def test_where_it_begins(folder: Folder) -> None:
    """`cdc journal info` shows it: with the end of the copy."""
    begin = first_state(folder)
    assert begin is not None
    assert begin.position.text == "0/10"


def test_a_journal_of_an_older_version(tmp_path: Path) -> None:
    """H6: where it is not written when the copy was, times are known from the first commit on."""
    writer = Writer(Folder(tmp_path / "old"), "cdc", "postgresql").open()
    writer.append(Segment([Reset(SCHEMA)], Transactions.none(), _at(0x10)))
    places = np.array([0x20], dtype=np.int64)
    rows = Changes(batch(SCHEMA, [(Op.INSERT, None, ("1",))]))
    writer.append(Segment([rows], Transactions(places, places, places * 0 + BEGIN, write_lsn), _at(0x28)))
    writer.close()
    old = Folder(tmp_path / "old")
    assert last(old, "2025-01-01") == 0x20
    with pytest.raises(UsageError, match="begins at 0/10"):
        last(old, "2024-12-31")
