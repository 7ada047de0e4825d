"""What a journal does not know is refused, with what helps; what it knows is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cdc.errors import NotKnown
from cdc.journal.folder import Folder
from cdc.journal.moment import find_end, find_start
from cdc.journal.writer import Writer
from cdc.model.change import Op, Transactions
from cdc.model.moment import Moment
from cdc.model.parts import Part
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Changes, Copied, Drop, Gap, Replace, Reset, Segment, Step
from cdc.sources.postgres.position import write_lsn
from tests.model.batches import batch, table

SCHEMA = table(1, (0,))
ROWS = replace(batch(SCHEMA, [(Op.INSERT, None, ("1",))]), copied=True)


def journal(path: Path, *records: tuple[Sequence[Step], Sequence[int]]) -> Folder:
    """A copy at 0/10, and records of some steps and the commits at some places; with none, at the place before."""
    folder = Folder(path / "log")
    writer, at = Writer(folder, "cdc", "postgresql").open(), 0x10
    for steps, orders in (([Reset(SCHEMA)], []), ([Changes(ROWS)], []), *records):
        places = np.array(orders, dtype=np.int64)
        at = orders[-1] + 8 if orders else at
        transactions = Transactions(places, places, places * 1_000_000, write_lsn)
        checkpoint = Checkpoint(Position(at, write_lsn(at)), "{}")
        writer.append(Segment(list(steps), transactions, checkpoint, read_at=1))
    writer.close()
    return folder


def known(folder: Folder, *places: int) -> list[bool]:
    """Whether it is known what there was at some places."""
    found = []
    for place in places:
        try:
            find_end(folder, Moment.parse(write_lsn(place)))
            found.append(True)
        except NotKnown:
            found.append(False)
        find_start(folder, Moment.parse(write_lsn(place)))  # to read on from there needs no more
    return found


def test_from_a_gap_to_the_end_of_the_copy(tmp_path: Path) -> None:
    """H4: exactly from the transaction with which it begins, wherever that is in a record; the message names both ends
    and the states beside them."""
    folder = journal(
        tmp_path,
        ([Gap(SCHEMA, "it was altered", 1)], [0x20, 0x30, 0x40]),
        ([], [0x50]),
        ([Reset(SCHEMA, by_parts=True)], []),
        ([], [0x60]),
        ([Replace(SCHEMA, Part(), (ROWS,))], []),
        ([Copied(SCHEMA)], []),
        ([], [0x70, 0x80]),
    )
    assert known(folder, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80) == [True, True, *[False] * 4, True, True]
    said = r"The rows of s\.t as of 0/40 are not known, and neither are those from 0/30 to 0/70: it was altered"
    with pytest.raises(NotKnown, match=said) as it:
        find_end(folder, Moment.parse("0/40"))
    assert it.value.hint is not None
    assert f"cdc rebuild journal:{folder.path} TARGET --until '0/20'" in it.value.hint
    assert f"cdc rebuild journal:{folder.path} TARGET --until '0/70'" in it.value.hint


def test_a_gap_that_has_not_ended(tmp_path: Path) -> None:
    """H4: one that begins between two transactions, and that nothing has ended."""
    folder = journal(tmp_path, ([], [0x20]), ([Gap(SCHEMA, "it is held")], []), ([], [0x30]))
    assert known(folder, 0x10, 0x30) == [True, False]
    with pytest.raises(NotKnown, match="to the end of the journal"):
        find_end(folder, Moment.parse("0/30"))


def test_what_ends_a_gap(tmp_path: Path) -> None:
    """H4, H7: a copy before the stream goes on, and the end of the table."""
    copied = journal(
        tmp_path / "a", ([Gap(SCHEMA, "x", 0)], [0x20]), ([Reset(SCHEMA)], []), ([Changes(ROWS)], []), ([], [0x30])
    )
    assert known(copied, 0x10, 0x20, 0x30) == [True, False, True]
    dropped = journal(tmp_path / "b", ([Gap(SCHEMA, "x", 0)], [0x20]), ([Drop(SCHEMA, 1)], [0x30, 0x40]))
    assert known(dropped, 0x20, 0x30, 0x40) == [False, False, True]


def test_a_copy_that_is_coming_when_changes_are_skipped_again(tmp_path: Path) -> None:
    """H4: its end is no end of what is skipped; only a copy that begins later is."""
    folder = journal(
        tmp_path,
        ([Gap(SCHEMA, "x", 0), Reset(SCHEMA, by_parts=True)], [0x20]),
        ([Gap(SCHEMA, "again", 0)], [0x30]),
        ([Copied(SCHEMA)], []),
        ([], [0x40]),
        ([Reset(SCHEMA, by_parts=True)], []),
        ([Copied(SCHEMA)], []),
        ([], [0x50]),
    )
    assert known(folder, 0x10, 0x20, 0x30, 0x40, 0x50) == [True, False, False, False, True]


def test_a_gap_that_was_found_out_later(tmp_path: Path) -> None:
    """H4: PostgreSQL's catalog says later that a table was rewritten: it was since somebody looked last."""
    gap, again = Gap(SCHEMA, "it was rewritten", 0, since=0x28), Reset(SCHEMA, True, 0)
    folder = journal(tmp_path, ([], [0x20]), ([], [0x30]), ([gap, again], [0x40]), ([Copied(SCHEMA)], []), ([], [0x50]))
    assert known(folder, 0x20, 0x30, 0x40, 0x50) == [True, False, False, True]
