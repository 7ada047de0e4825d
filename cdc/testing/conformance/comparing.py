"""Checks of what a target says of its rows: digests, rows of some buckets, values, keys, columns."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from cdc.errors import UsageError
from cdc.model.parts import BUCKETS, WHOLE, Condition, Part
from cdc.model.schema import TableName
from cdc.testing.conformance.driver import Driver, digest_of, hashed_rows, key_of, refused, share_of
from cdc.testing.conformance.following import work_for
from cdc.testing.conformance.work import State, keyed

_SHARES = 3


def says_what_it_holds(driver: Driver, random: Random) -> None:
    """Digests, hashes, values and keys of whole tables and of parts by range, share and keys are those that Python
    makes of the rows; so they are inside a transaction, which is not durable yet."""
    work = work_for(driver, random)
    driver.open()
    driver.apply(*work.copies())
    driver.apply(replace(work.transaction(), checkpoint=None))
    _compare(driver, work.state())


def _compare(driver: Driver, state: State) -> None:
    target = driver.comparable
    for schema, held in state.values():
        rows = list(held.elements())
        cases = [(WHOLE, rows)]
        for share in (0, _SHARES - 1):
            part = Part(share=share, shares=_SHARES)
            cases.append((part, [row for row in rows if share_of(schema, row, _SHARES) == share]))
        if schema.key:
            some = rows[: len(rows) // 2]
            cases.append((Part(keys=tuple(key_of(schema, row) for row in some)), some))
            cases.append((Part(keys=()), []))
        if schema.key == (0,):
            cases.append((Part(after=("1",), upto=("5",)), [row for row in rows if 1 < int(row[0] or 0) <= 5]))
        for part, expected in cases:
            assert target.digest(schema, part) == digest_of(schema, expected), (schema.table, part)
            listed = sorted(target.rows(schema, part, range(BUCKETS)), key=lambda row: (row.key, row.hash))
            assert listed == sorted(hashed_rows(schema, expected), key=lambda row: (row.key, row.hash))
            some_buckets = [number for number in range(BUCKETS) if number % 2]
            odd = [row for row in listed if row.hash % BUCKETS % 2]
            assert sorted(target.rows(schema, part, some_buckets), key=lambda row: (row.key, row.hash)) == odd
            assert target.keys(schema, part) == {key_of(schema, row) for row in expected}
        if schema.key:
            asked = [key_of(schema, row) for row in rows] + [tuple("404" for _ in schema.key)]
            names = [column.name for column in schema.columns]
            expected_rows = {key_of(schema, row): dict(zip(names, row, strict=True)) for row in rows}
            assert target.values(schema, asked) == expected_rows
        names = [held_column.name for held_column in target.columns(schema)]
        assert sorted(names) == sorted(column.name for column in schema.columns)
        assert all(held_column.fits for held_column in target.columns(schema)), target.columns(schema)


def decides_conditions(driver: Driver, random: Random) -> None:
    """Rows by a condition in the words of a source's SQL; one that the target cannot decide is refused."""
    work = work_for(driver, random)
    driver.open()
    driver.apply(*work.copies())
    schema, held = work.state()[keyed().identity]
    expected = {key_of(schema, row) for row in held if int(row[0] or 0) > 2 and row[2] is not None}
    for dialect, text in (
        ("postgres", '"id" > 2 AND "count" IS NOT NULL'),
        ("mysql", "id > 2 AND `count` > -3e9"),
    ):
        assert driver.comparable.keys(schema, Part(condition=Condition(text, dialect))) == expected
    with refused(UsageError, naming=schema.table.name):
        driver.comparable.keys(schema, Part(condition=Condition("no_such_column > 2", "postgres")))
    driver.apply(work.transaction())
    driver.verify(work.state())
    nowhere = replace(schema, identity=99, table=TableName("conformance", "nowhere"))
    assert driver.comparable.columns(nowhere) == []
