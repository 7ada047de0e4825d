"""One target at a place, driven as a pipeline drives it, and looked at from outside."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import NoReturn

import numpy as np

from cdc import faults
from cdc.errors import CdcError, TargetBusy
from cdc.model.change import ABSENT, ChangeBatch, Op
from cdc.model.parts import BUCKETS, WHOLE, Digest, HashedRow, Key
from cdc.model.position import Checkpoint
from cdc.model.schema import Kind, TableSchema
from cdc.model.segment import Changes, Segment
from cdc.target import Comparable, Mode, Target
from cdc.testing.conformance.place import Place, Texts
from cdc.testing.conformance.work import State

_OWN_EVERY = 3  # looks from outside, of which one is also at what the target says by itself: it costs more
_HELD_FOR = 600.0  # seconds, at most, for which another process has a target open
_LET_GO_WITHIN = 20.0  # seconds for a lease to end with the process that had it


class Driver:
    """Opens a target again and again, and compares what it holds with what it should."""

    def __init__(self, place: Place, mode: Mode) -> None:
        self.place = place
        self.mode = mode
        self._target: Target | None = None
        self._looks = 0

    @property
    def target(self) -> Target:
        """The target, which is open."""
        assert self._target is not None, "the suite has not opened the target"
        return self._target

    @property
    def comparable(self) -> Comparable:
        """The same, as one that can be compared."""
        assert isinstance(self.target, Comparable)
        return self.target

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> Checkpoint | None:
        """Open it, as it was left."""
        self._target = self.place.make(self.mode)
        return self._target.open()

    def close(self) -> None:
        """Let go of it, twice, as may be done."""
        if self._target is not None:
            self._target.close()
            self._target.close()
            self._target = None

    def again(self) -> Checkpoint | None:
        """Close it and open it."""
        self.close()
        return self.open()

    def apply(self, *segments: Segment) -> None:
        """Apply segments, one after the other."""
        for segment in segments:
            self.target.apply(segment)

    # --- looking ----------------------------------------------------------------------------------------------------

    def verify(self, state: State) -> None:
        """The tables hold exactly these rows: as read from outside, and now and then as the target says by itself."""
        self._looks += 1
        is_due = self.place.read is None or self._looks % _OWN_EVERY == 1
        if is_due and isinstance(self._target, Comparable):
            for schema, held in state.values():
                self._verify_by_target(self._target, schema, held)
        if self.place.read is not None:
            self.close()
            for schema, held in state.values():
                found = self.place.read(schema)
                assert found is not None, f"{schema.table} is not there."
                differ(schema, held, Counter(found))
            self.open()

    def verify_past(self, now: State, past: Mapping[str, State]) -> None:
        """As of positions the tables held these rows, by those of their columns that they still have."""
        if self.place.recall is None or self.mode is not Mode.HISTORY:
            return
        self.close()
        for position, state in past.items():
            for identity, (then, held) in state.items():
                schema, _ = now[identity]
                places = {column.identity: index for index, column in enumerate(then.columns)}
                columns = tuple(column for column in schema.columns if column.identity in places)
                chosen = [places[column.identity] for column in columns]
                expected = Counter(tuple(row[index] for index in chosen) for row in held.elements())
                recalled = replace(schema, columns=columns)
                differ(recalled, expected, Counter(self.place.recall(recalled, position)), f" as of {position}")
        self.open()

    def _verify_by_target(self, target: Comparable, schema: TableSchema, held: Counter[Texts]) -> None:
        if schema.key:
            rows = target.values(schema, sorted(target.keys(schema, WHOLE)))
            names = [column.name for column in schema.columns]
            differ(schema, held, Counter(tuple(row[name] for name in names) for row in rows.values()))
        found = Counter(target.rows(schema, WHOLE, range(BUCKETS)))
        expected = Counter(hashed_rows(schema, held.elements()))
        assert found == expected, f"{schema.table}: hashes of rows are others than a source's: {found - expected}"
        assert target.digest(schema, WHOLE) == digest_of(schema, held), f"{schema.table}: the digest is another one."


def differ(schema: TableSchema, expected: Counter[Texts], found: Counter[Texts], when: str = "") -> None:
    """Say which rows are not the same on both sides."""
    missing, more = expected - found, found - expected
    assert expected == found, (
        f"{schema.table}{when} {[column.name for column in schema.columns]}: the target lacks {_some(missing)}, "
        f"and has {_some(more)} instead."
    )


def _some(rows: Counter[Texts]) -> str:
    listed = ", ".join(str(row) for row in list(rows.elements())[:5])
    return f"{rows.total()} rows ({listed})" if rows else "no row"


# --- digests by Python, from `cdc.tables.digest`'s description of them ----------------------------------------------


def digest_of(schema: TableSchema, rows: Iterable[Texts] | Counter[Texts]) -> Digest:
    """What a target should say of these rows."""
    counted = rows if isinstance(rows, Counter) else Counter(rows)
    sums: dict[int, tuple[int, int]] = {}
    for hashed in hashed_rows(schema, counted.elements()):
        bucket = hashed.hash % BUCKETS
        count, total = sums.get(bucket, (0, 0))
        sums[bucket] = (count + 1, total + hashed.hash)
    return Digest.of((bucket, count, total) for bucket, (count, total) in sums.items())


def hashed_rows(schema: TableSchema, rows: Iterable[Texts]) -> list[HashedRow]:
    """Each row by its key and the hash of all its values."""
    columns = range(len(schema.columns))
    return [HashedRow(key_of(schema, row), _hash(_row_text(schema, row, columns), 16)) for row in rows]


def key_of(schema: TableSchema, row: Texts) -> Key:
    """The texts of a row's key."""
    return tuple(row[index] or "" for index in schema.key)


def share_of(schema: TableSchema, row: Texts, shares: int) -> int:
    """In which of so many shares a row is (`cdc.model.parts.Part`)."""
    return _hash(_row_text(schema, row, schema.key or range(len(schema.columns))), 8) % shares


def _hash(text: str, digits: int) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:digits], 16)


def _row_text(schema: TableSchema, row: Texts, columns: Iterable[int]) -> str:
    pieces = []
    for index in columns:
        text = row[index]
        if text is not None:
            text = _digest_text(text, schema.columns[index].type.kind)
        pieces.append("n" if text is None else f"{len(text.encode())}:{text}")
    return "".join(pieces)


def _digest_text(text: str, kind: Kind) -> str:
    """What of a value goes into a digest: the bits of floats, the source's text of all others."""
    if kind in (Kind.FLOAT32, Kind.FLOAT64) and text != "NaN":
        value = float(np.float32(text) if kind is Kind.FLOAT32 else text)
        (bits,) = struct.unpack(">Q", struct.pack(">d", value))
        return f"{bits:064b}"
    if kind is Kind.VECTOR:
        return b"".join(struct.pack("<f", float(each)) for each in text[1:-1].split(",")).hex().upper()
    return text


# --- cutting, failing, dying ------------------------------------------------------------------------------------


def parts(segment: Segment, random: Random) -> list[Segment]:
    """A segment in two or three, of which only the last one has the checkpoint; the borders are anywhere."""
    pieces = [segment]
    for _ in range(random.randint(1, 2)):
        first = pieces.pop(0)
        pieces[:0] = _cut(first, random)
    return pieces


def _cut(segment: Segment, random: Random) -> list[Segment]:
    steps = segment.steps
    if not steps:
        return [segment]
    index = random.randrange(len(steps))
    before, after = list(steps[:index]), list(steps[index:])
    step = steps[index]
    if isinstance(step, Changes) and len(step.batch) > 1 and not _moves_keys(step.batch):
        row = random.randrange(1, len(step.batch))
        every = range(len(step.batch))
        before.append(Changes(step.batch.rows(_places(every[:row]))))
        after[0] = Changes(step.batch.rows(_places(every[row:])))
    return [
        Segment(before, segment.transactions, None, segment.size),
        Segment(after, segment.transactions, segment.checkpoint, segment.size),
    ]


def _moves_keys(batch: ChangeBatch) -> bool:
    """Whether two rows may have one key between two of the changes: no source ends a segment there."""
    return bool(batch.schema.key and ((batch.op == Op.UPDATE) & (batch.before_row != ABSENT)).any())


def _places(rows: Sequence[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


@contextmanager
def refused(*kinds: type[CdcError], naming: str = "") -> Iterator[None]:
    """What is done is refused with an error of one of these kinds, whose message has a name in it."""
    try:
        yield
    except kinds as error:
        assert naming in error.message, f"The refusal does not name {naming}: {error.message}"
        return
    names = " or ".join(kind.__name__ for kind in kinds)
    raise AssertionError(f"It should have been refused ({names}){f', by the name of {naming}' if naming else ''}.")


def dies(work: Callable[[], None], fault: str = "") -> None:
    """Another process does some work, and is killed: at a fault point if it passes that, and when it has done it."""
    child = os.fork()
    if child == 0:
        _do_and_die(lambda: _with(fault, work))
    os.waitpid(child, 0)


def _hold(open_it: Callable[[], object], tell: int) -> None:
    open_it()
    os.write(tell, b"!")
    time.sleep(_HELD_FOR)


def _with(fault: str, work: Callable[[], None]) -> None:
    with faults.armed(fault):
        work()


def _do_and_die(work: Callable[[], object]) -> NoReturn:
    """Nothing of the test that was forked may go on in this process."""
    try:
        work()
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@contextmanager
def held_by_another_process(open_it: Callable[[], object]) -> Iterator[None]:
    """Another process has something open meanwhile, and is killed then."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        _do_and_die(lambda: _hold(open_it, tell))
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"!", "The target could not be opened by another process."
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)


def once_let_go(open_it: Callable[[], Checkpoint | None]) -> Checkpoint | None:
    """Open what a process had that is dead: a server may notice that a moment later."""
    deadline = time.monotonic() + _LET_GO_WITHIN
    while True:
        try:
            return open_it()
        except TargetBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
