"""Checks of what a target says that it cannot do: it refuses that by name, and nothing has changed then."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from cdc.errors import UsageError
from cdc.model.change import Transactions
from cdc.model.schema import Kind, LogicalType
from cdc.model.segment import Reset, Segment
from cdc.target import Choosy
from cdc.testing.conformance.driver import Driver, refused
from cdc.testing.conformance.work import Work, at, column, keyed, keyless


def refuses_keyless_tables(driver: Driver, random: Random) -> None:
    """A table without a key is refused by its name: when tables are chosen, and when it comes later."""
    work = Work(random, keyed())
    driver.open()
    if isinstance(driver.target, Choosy):
        driver.target.refuse([keyed()])
        with refused(UsageError, naming=keyless().table.name):
            driver.target.refuse([keyed(), keyless()])
    driver.apply(*work.copies())
    late = Segment([Reset(keyless())], Transactions.none(), at(work.order + 10))
    _refuses_table(driver, late, keyless().identity, keyless().table.name)
    driver.again()
    driver.verify(work.state())


def _refuses_table(driver: Driver, segment: Segment, identity: int, name: str) -> None:
    try:
        with refused(UsageError, naming=name):
            try:
                driver.apply(segment)
            except UsageError as error:
                assert error.concerns == identity, "The refusal does not say which table it concerns (`concerns`)."
                raise
    finally:
        driver.again()


def keeps_its_mode(driver: Driver, random: Random) -> None:
    """A target whose tables are kept in one mode goes on so if nothing is said, and refuses every other mode."""
    work = Work(random, keyed())
    driver.open()
    driver.apply(*work.copies())
    driver.close()
    for mode in driver.place.abilities.modes:
        if mode is not driver.mode:
            target = driver.place.make(mode)
            try:
                with refused(UsageError, naming=driver.mode):
                    target.open()
            finally:
                target.close()
    target = driver.place.make(None)
    target.open()
    segment = work.transaction()
    target.apply(segment)
    target.close()
    assert driver.open() == segment.checkpoint
    driver.verify(work.state())


def refuses_mode(driver: Driver, random: Random) -> None:
    """A mode that the target does not have is refused by name before anything is written."""
    try:
        with refused(UsageError, naming=driver.mode):
            driver.open()
    finally:
        driver.close()


def leaves_others_alone(driver: Driver, random: Random) -> None:
    """A table that the pipeline did not make is refused by its name, and stays as it is."""
    occupy = driver.place.occupy
    assert occupy is not None, "The place of a target that is durable has to say how others make tables (`occupy`)."
    work, theirs = Work(random, keyed()), keyed(7, "theirs")
    occupy(theirs.table)
    driver.open()
    if isinstance(driver.target, Choosy):
        with refused(UsageError, naming="theirs"):
            driver.target.refuse([keyed(), theirs])
    driver.apply(*work.copies())
    late = Segment([Reset(theirs)], Transactions.none(), at(work.order + 10))
    _refuses_table(driver, late, 7, "theirs")
    driver.verify(work.state())
    driver.close()
    if driver.place.read is not None:
        of_them = replace(theirs, columns=(column("theirs", LogicalType(Kind.INT32), 1),))
        assert driver.place.read(of_them) == [], "A table was changed that is not the pipeline's."
