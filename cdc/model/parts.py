"""Parts of a table that both sides can name, and digests of them that both sides compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

BUCKETS = 256
HASHES = 1 << 64

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on the columns of a table, in SQL of a dialect as sqlglot names it (see `cdc.jobs.condition`)."""

    sql: str
    dialect: str


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a table; all of them if nothing is set. What is set holds at once.

    Attributes:
        after, upto: canonical texts of the first columns of the key, which both sides order alike: rows beyond the
            one, and up to and with the other. None for the table's begin and end.
        share: of `shares`, the number of the one to which a row belongs by the hash of its key (of all of its columns
            if it has none).
        keys: canonical texts of whole keys; only the rows that have one of them.
        condition: only the rows that fulfil it, which the two sides may not see alike: 7 / 4 = 1.
    """

    after: Key | None = None
    upto: Key | None = None
    share: int = 0
    shares: int = 1
    keys: tuple[Key, ...] | None = None
    condition: Condition | None = None


WHOLE = Part()


@dataclass(frozen=True, slots=True)
class Digest:
    """How many rows there are in each bucket, and the sum of their hashes, which no order of rows changes.

    A row belongs to the bucket that the lowest bits of its hash say. So a row that is not the same on both sides makes
    at most two buckets differ, and only their rows have to be looked at one by one.

    Attributes:
        buckets: number -> (rows, sum of their 64-bit hashes modulo 2**64); without the empty ones.
    """

    buckets: Mapping[int, tuple[int, int]]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int]]) -> Digest:
        """From (bucket, rows, sum of hashes), which may be of signed or of unsigned numbers."""
        return cls({bucket: (count, total % HASHES) for bucket, count, total in rows})

    @property
    def row_count(self) -> int:
        return sum(count for count, _ in self.buckets.values())

    def differing(self, other: Digest) -> list[int]:
        """The buckets that are not the same."""
        return [
            bucket
            for bucket in sorted({*self.buckets, *other.buckets})
            if self.buckets.get(bucket) != other.buckets.get(bucket)
        ]


@dataclass(frozen=True, slots=True)
class HashedRow:
    """One row by its key (empty for a table without one) and the hash of all its values."""

    key: Key
    hash: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same on both sides.

    Attributes:
        key: canonical texts; empty for a table without a key.
        found: `different`, `source only` or `target only`.
        copies: of a table without a key, how many rows like it that side has more than the other.
    """

    key: Key
    found: str
    copies: int = 1


def compare(source: Iterable[HashedRow], target: Iterable[HashedRow]) -> list[Difference]:
    """Which rows are not the same on both sides."""
    return sorted(_differences(_by_key(source), _by_key(target)), key=lambda difference: difference.key)


def _by_key(rows: Iterable[HashedRow]) -> dict[Key, dict[int, int]]:
    """Per key, how often each hash is there: a key that occurs twice is a difference, too."""
    found: dict[Key, dict[int, int]] = {}
    for row in rows:
        hashes = found.setdefault(row.key, {})
        hashes[row.hash] = hashes.get(row.hash, 0) + 1
    return found


def _differences(source: dict[Key, dict[int, int]], target: dict[Key, dict[int, int]]) -> Iterator[Difference]:
    for key in {*source, *target}:
        ours, theirs = source.get(key, {}), target.get(key, {})
        if ours == theirs:
            continue
        if key and ours and theirs:
            yield Difference(key, "different")
            continue
        more = sum(max(0, count - theirs.get(value, 0)) for value, count in ours.items())
        less = sum(max(0, count - ours.get(value, 0)) for value, count in theirs.items())
        if more:
            yield Difference(key, "source only", more)
        if less:
            yield Difference(key, "target only", less)
