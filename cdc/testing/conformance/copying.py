"""Checks of copies, in segments and by parts while the log goes on, and of tables under suspicion."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

from cdc.errors import RowDrift
from cdc.model.change import Op, Transactions
from cdc.model.parts import WHOLE, Part
from cdc.model.schema import Kind, LogicalType
from cdc.model.segment import Copied, Replace, Reset, Segment, Suspect
from cdc.testing.batches import UNCHANGED
from cdc.testing.conformance.driver import Driver, refused
from cdc.testing.conformance.following import work_for
from cdc.testing.conformance.work import Table, Work, at, column, keyed

_BORDERS = ("1", "4")  # keys between the parts of a table


def copies_again(driver: Driver, random: Random) -> None:
    """A table is copied again, in another shape, after changes that nobody saw; the first try is cut off."""
    work = work_for(driver, random)
    driver.open()
    driver.apply(*work.copies())
    driver.apply(work.transaction())
    for table in work.tables:
        work.unseen(table)
    first = work.tables[0]
    wider = (*first.schema.columns, column("late", LogicalType(Kind.TEXT), 50))
    work.evolve(first, replace(first.schema, columns=wider))
    work.order += 10
    cut_off = work.copies()
    driver.apply(*cut_off[: random.randint(1, len(cut_off) - 1)])
    assert driver.again() == at(work.order)
    work.order += 10
    driver.apply(*work.copies())
    driver.verify(work.state())
    driver.apply(work.transaction(), work.transaction())
    driver.verify(work.state())


def copies_by_parts(driver: Driver, random: Random) -> None:
    """A table is copied part by part while its changes come: they apply to what rows there are, what they lack is read
    again, and what the target knows of that outlives it."""
    by_steps = random.random() < 0.5
    work = work_for(driver, random)
    driver.open()
    driver.apply(*work.copies())
    for table in work.tables:
        work.unseen(table)
    work.order += 10
    schemas = [table.schema for table in work.tables]
    driver.apply(Segment([Reset(schema, by_parts=True) for schema in schemas], Transactions.none(), at(work.order)))
    everything = {schema.identity for schema in schemas}
    assert driver.comparable.copying == everything
    driver.again()
    assert driver.comparable.copying == everything, "It is forgotten that tables are copied by parts."
    for table in work.tables:
        _copy_parts(driver, work, table, by_steps=by_steps)
    assert driver.comparable.copying == set()
    driver.verify(work.state())
    driver.again()
    assert driver.comparable.copying == set()
    driver.apply(work.transaction(), work.transaction())
    driver.verify(work.state())


def _copy_parts(driver: Driver, work: Work, table: Table, *, by_steps: bool) -> None:
    schema = table.schema
    ranged = schema.key == (0,)
    borders = [None, *((border,) for border in _BORDERS), None] if ranged else [None, None]
    for after, upto in pairwise(borders):
        driver.apply(work.transaction(), work.transaction())
        part = Part(after=after, upto=upto)
        low, high = (None if border is None else int(border[0]) for border in (after, upto))
        rows = [
            row
            for row in table.rows
            if not ranged or ((low is None or int(str(row[0])) > low) and (high is None or int(str(row[0])) <= high))
        ]
        _replace(driver, work, table, part, rows, by_steps=by_steps)
    driver.apply(work.transaction())
    _read_what_is_missed(driver, work, table)
    if by_steps:
        driver.apply(Segment([Copied(schema)], Transactions.none(), at(work.order + 1)))
    else:
        driver.comparable.copied(schema)


def _read_what_is_missed(driver: Driver, work: Work, table: Table) -> None:
    missed = driver.comparable.take_missed(table.schema)
    assert driver.comparable.take_missed(table.schema) == [], "Missed keys are given once."
    if missed:
        keys = set(missed)
        rows = [row for row in table.rows if table.key_of(row) in keys]
        _replace(driver, work, table, Part(keys=tuple(missed)), rows, by_steps=False)


def _replace(driver: Driver, work: Work, table: Table, part: Part, rows: list[list[object]], *, by_steps: bool) -> None:
    batches = [work.copied(table, rows)] if rows else []
    if by_steps:
        steps = [Replace(table.schema, part, tuple(batches))]
        driver.apply(Segment([*steps], Transactions.none(), at(work.order + 1)))
    else:
        driver.comparable.replace(table.schema, part, batches)


def doubts(driver: Driver, random: Random) -> None:
    """A table under suspicion takes changes of rows that it does not have, says which rows it then lacks, and is strict
    again once it was set right; marks outlive the target, and only the mark that was seen is cleared."""
    work = Work(random, keyed())
    (table,) = work.tables
    identity = table.schema.identity
    lost = table.rows[0]
    driver.open()
    driver.apply(*work.copies())
    driver.comparable.replace(table.schema, Part(keys=((str(lost[0]),),)), [])
    without = Counter(table.held())
    without[tuple(None if value is None else str(value) for value in lost)] -= 1
    driver.verify({identity: (table.schema, +without)})
    work.order += 10
    driver.apply(Segment([Suspect(table.schema, "a test says so", 0)], work.changed().transactions, at(work.order + 1)))
    first = driver.comparable.suspects[identity]
    assert first.reason == "a test says so"
    driver.comparable.suspect(identity, "it says so again")
    second = driver.comparable.suspects[identity]
    assert second.number != first.number
    driver.again()
    assert dict(driver.comparable.suspects) == {identity: second}, "It is forgotten that a table is suspect."
    lost[1] = "changed"
    driver.apply(work.changed((table, (Op.UPDATE, None, (lost[0], "changed", *[UNCHANGED] * (len(lost) - 2))))))
    assert (str(lost[0]),) in driver.comparable.take_missed(table.schema)
    driver.comparable.replace(table.schema, Part(keys=((str(lost[0]),),)), [work.copied(table, [lost])])
    driver.comparable.cleared(identity, first.number)
    assert identity in driver.comparable.suspects, "A mark was cleared that came after the comparison."
    driver.comparable.cleared(identity, second.number)
    assert driver.comparable.suspects == {}
    driver.verify(work.state())
    if driver.place.abilities.notices_drift:
        _drifts(driver, work, table)


def _drifts(driver: Driver, work: Work, table: Table) -> None:
    """A change of a row that is not there concerns this table, and nothing of it stays."""
    nobody = ("777", *[None] * (len(table.schema.columns) - 1))
    before = work.state()
    segment = work.changed((table, (Op.DELETE, nobody, None)))
    with refused(RowDrift, naming=table.schema.table.name):
        driver.apply(segment)
    assert driver.again() != segment.checkpoint
    driver.verify(before)


def refuses_drift(driver: Driver, random: Random) -> None:
    """A change of a row that is not there is refused by the table's name, and nothing of its transaction stays."""
    work = Work(random, keyed())
    driver.open()
    driver.apply(*work.copies())
    _drifts(driver, work, work.tables[0])


def replaces(driver: Driver, random: Random) -> None:
    """Rows are put in the place of parts between two transactions, and inside of one, with which they are undone."""
    work = work_for(driver, random)
    driver.open()
    driver.apply(*work.copies())
    before = work.state()
    next_ = work.transaction()
    driver.apply(replace(next_, checkpoint=None))
    for table in work.tables:
        work.unseen(table)
    for table in work.tables:
        batches = [work.copied(table, table.rows)] if table.rows else []
        driver.comparable.replace(table.schema, WHOLE, batches)
    driver.again()
    if driver.place.abilities.is_atomic:
        driver.verify(before)
    for table in work.tables:
        batches = [work.copied(table, table.rows)] if table.rows else []
        driver.comparable.replace(table.schema, WHOLE, batches)
    driver.verify(work.state())
    driver.apply(Segment([], next_.transactions, next_.checkpoint))
    driver.apply(work.transaction())
    driver.verify(work.state())
