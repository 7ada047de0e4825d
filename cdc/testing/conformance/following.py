"""Checks of what a target does with the log: apply, leave undone, ignore what it has, get up again."""

from __future__ import annotations

from contextlib import suppress
from random import Random

from cdc import faults
from cdc.errors import CdcError, TargetBusy
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment, join
from cdc.testing.conformance.driver import Driver, dies, held_by_another_process, once_let_go, parts, refused
from cdc.testing.conformance.work import BEGIN, Work, at, keyed, keyed_by_two, keyless

_POINTS = [name for name in faults.POINTS if name.startswith(("target.", "versioned."))]
_RECALLED = 6  # commits, of each check, as of which the tables are looked at


def work_for(driver: Driver, random: Random) -> Work:
    """Work on tables of every kind that the target takes.

    Two rows of one key, between two segments of a transaction, are only for targets that show neither: a database
    checks its keys row by row, unless they are deferred, and then a log does not take them for an identity.
    """
    abilities = driver.place.abilities
    tables = [keyed(), keyed_by_two(), *([keyless()] if driver.mode in abilities.keyless else [])]
    return Work(random, *tables, rotates=abilities.is_atomic)


def _begun(driver: Driver, work: Work) -> None:
    assert driver.open() is None, "An empty place has a checkpoint."
    driver.apply(*work.copies())


def _done(work: Work, checkpoint: Checkpoint | None) -> int:
    """How many transactions of the log a checkpoint is behind."""
    ends = [at(work.log[0].transactions[0].position.order)] + [segment.checkpoint for segment in work.log]
    orders = [end.position.order for end in ends if end is not None]
    assert checkpoint is not None, "The target has lost its checkpoint."
    before = [number for number, order in enumerate(orders) if number == 0 or order <= checkpoint.position.order]
    if before[-1]:
        assert checkpoint == work.log[before[-1] - 1].checkpoint, f"{checkpoint} is not one of those that were applied."
    return before[-1]


def follows(driver: Driver, random: Random) -> None:
    """Inserts, updates, deletes, keys that move and are swapped, truncates, values that the log left out: in segments
    that overlap, come again, are cut anywhere, and end in the middle of a transaction when the target is closed."""
    _follow(driver, random, shapes=False)


def changes_shape(driver: Driver, random: Random) -> None:
    """The same while tables get columns with values in the rows that are there, lose columns, get other names and
    types for them, get other names and each other's names."""
    _follow(driver, random, shapes=True)


def _follow(driver: Driver, random: Random, *, shapes: bool) -> None:
    work = work_for(driver, random)
    copies = work.copies()
    first = work.states[0]
    work.transactions(16, shapes=shapes)
    assert driver.open() is None, "An empty place has a checkpoint."
    driver.apply(*copies)
    driver.verify(first)
    done = given = 0
    while done < len(work.log):
        begin, end = random.randint(max(0, done - 3), done), random.randint(done, min(done + 4, len(work.log)))
        if begin == end:
            continue
        segment = join(work.log[begin:end])
        pieces = parts(segment, random) if random.random() < 0.5 else [segment]
        given = max(given, end)
        if len(pieces) > 1 and random.random() < 0.5:
            driver.apply(*pieces[:-1])
            assert _done(work, driver.again()) == done, "A transaction counts as applied before its end came."
            if driver.place.abilities.is_atomic:
                driver.verify(work.states[done])
            continue
        driver.apply(*pieces)
        done = max(done, end)
        if random.random() < 0.3 or done == len(work.log):
            if driver.place.abilities.is_atomic or done == given:
                driver.verify(work.states[done])
            assert _done(work, driver.again()) == done, "The checkpoint is not that of what was applied."
    driver.apply(work.log[-1])  # and once more, as a whole
    driver.verify(work.states[-1])
    _verify_past(driver, work)


def _verify_past(driver: Driver, work: Work) -> None:
    """As of some commits, the copy and the last one among them, the tables hold what they held then."""
    positions = [str(BEGIN), *(segment.transactions[-1].position.text for segment in work.log)]
    numbers = range(1, len(positions) - 1)
    chosen = [0, *sorted(work.random.sample(numbers, min(len(numbers), _RECALLED))), len(positions) - 1]
    driver.verify_past(work.state(), {positions[number]: work.states[number] for number in chosen})


def gets_up_again(driver: Driver, random: Random) -> None:
    """A failure at any of the fault points: what is open then is closed, and all that comes after the checkpoint is
    applied again."""
    work = work_for(driver, random)
    copies = work.copies()
    work.transactions(2 * len(_POINTS), shapes=True)
    driver.open()
    driver.apply(*copies)
    done = given = 0
    for point in random.sample(_POINTS, len(_POINTS)):
        end = min(len(work.log), done + random.randint(1, 2))
        given = max(given, end)
        segment = join(work.log[done:end])
        pieces = parts(segment, random) if random.random() < 0.3 else [segment]
        try:
            with faults.armed(f"{point}:{random.randint(1, 2)}=raise"):
                driver.apply(*pieces)
                driver.again()
        except CdcError as error:
            assert isinstance(error, faults.FaultPassing), f"A failure at {point} became {error!r}."
            with suppress(faults.FaultPassing):
                driver.close()
        done = _done(work, driver.again())
        if (driver.place.abilities.is_atomic or done == given) and random.random() < 0.3:
            driver.verify(work.states[done])
    driver.apply(*work.log[done:])
    driver.verify(work.states[-1])
    _verify_past(driver, work)


def survives_being_killed(driver: Driver, random: Random) -> None:
    """The process that writes is killed at a fault point, and another one goes on."""
    work = work_for(driver, random)
    copies = work.copies()
    work.transactions(12, shapes=True)
    driver.open()
    driver.apply(*copies)
    driver.close()
    done = 0
    while done < len(work.log):
        end = min(len(work.log), done + 4)
        point = random.choice(["", f"{random.choice(_POINTS)}:{random.randint(1, 3)}"])
        dies(lambda: _apply_each(driver, work.log[done:end]), point)  # noqa: B023
        now = _done(work, once_let_go(driver.open))
        assert done <= now <= end
        driver.apply(*work.log[now:end])
        done = end
        driver.verify(work.states[done])
        driver.close()
    _verify_past(driver, work)


def _apply_each(driver: Driver, segments: list[Segment]) -> None:
    driver.open()
    driver.apply(*segments)


def has_a_lease(driver: Driver, random: Random) -> None:
    """Who opens a target while another process has it open is refused, until that process ends."""
    work = work_for(driver, random)
    with held_by_another_process(driver.open), refused(TargetBusy):
        driver.open()
    driver.close()
    assert once_let_go(driver.open) is None
    driver.apply(*work.copies())
    driver.verify(work.states[0])
    driver.close()
    with held_by_another_process(driver.open), refused(TargetBusy):
        driver.open()
    driver.close()
    assert once_let_go(driver.open) == work.copies()[-1].checkpoint
