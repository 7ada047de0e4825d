"""A check of histories: as of a commit the tables are what they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from cdc.model.schema import TableSchema
from cdc.model.segment import join
from cdc.testing.conformance.driver import Driver, differ
from cdc.testing.conformance.following import work_for
from cdc.testing.conformance.place import Texts
from cdc.testing.conformance.work import State, Work

_PLACES = 7  # of those that are asked about


def remembers(driver: Driver, random: Random) -> None:
    """After changes that come again, shapes that change and a copy that finds other rows, each table is as of commits
    and copies what it was then, in those of its columns that it still has."""
    work = work_for(driver, random)
    states: dict[str, State] = {}
    driver.open()
    _copy(driver, work, states)
    _follow(driver, work, states)
    for table in work.tables:
        work.unseen(table)
    work.order += 10
    _copy(driver, work, states)
    driver.again()
    _follow(driver, work, states)
    driver.verify(work.state())
    driver.close()
    read = driver.place.recall
    assert read is not None, "The place of a target that keeps histories has to say how they are read (`recall`)."
    now = work.state()
    for position in random.sample(sorted(states), _PLACES):
        for identity, (then, held) in states[position].items():
            schema, places = _shared(now[identity][0], then)
            expected: Counter[Texts] = Counter()
            for row, count in held.items():
                expected[tuple(row[place] for place in places)] += count
            differ(schema, expected, Counter(read(schema, position)))


def _copy(driver: Driver, work: Work, states: dict[str, State]) -> None:
    driver.apply(*work.copies())
    states[str(work.order)] = work.state()


def _follow(driver: Driver, work: Work, states: dict[str, State]) -> None:
    begin = len(work.log)
    for _ in range(8):
        work.transaction(shapes=True)
        states[str(work.order)] = work.state()
    for end in (begin + 3, begin + 6, begin + 8):
        driver.apply(join(work.log[begin:end]))  # what came before comes again
        if work.random.random() < 0.3:
            driver.again()


def _shared(now: TableSchema, then: TableSchema) -> tuple[TableSchema, Sequence[int]]:
    """A table with those columns alone that it had, and where these were."""
    were = {column.identity: place for place, column in enumerate(then.columns)}
    columns = tuple(column for column in now.columns if column.identity in were)
    return replace(now, columns=columns), [were[column.identity] for column in columns]
