"""Global transaction identifiers: sets of MySQL's, with tags, and the positions per domain of MariaDB.

MySQL: https://dev.mysql.com/doc/refman/9.0/en/replication-gtids-concepts.html
MariaDB: https://mariadb.com/kb/en/gtid/
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from cdc.errors import DecodeError

Source = tuple[str, str]  # the server's UUID, the tag ('' for none)
_NUMBER = re.compile(r"[0-9]{1,20}")
_MOST_NUMBER, _MOST_ID = (1 << 63) - 2, (1 << 32) - 1  # of MySQL's transactions; of MariaDB's domains and servers
_MOST_SEQUENCE = (1 << 64) - 1
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")


def is_tag(text: str) -> bool:
    """Whether a text can be the tag of a GTID, in lower case."""
    return _TAG.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Gtid:
    """One transaction's identifier; `source` is a UUID with a tag, or a domain and a server."""

    source: tuple[str, str] | tuple[int, int]
    number: int

    def __str__(self) -> str:
        if isinstance(self.source[0], int):
            return f"{self.source[0]}-{self.source[1]}-{self.number}"
        return ":".join(filter(None, [self.source[0], str(self.source[1]), str(self.number)]))


@dataclass(slots=True)
class MySqlGtids:
    """A set of `uuid:number` and `uuid:tag:number`, as sorted disjoint intervals [first, last] per source."""

    intervals: dict[Source, list[tuple[int, int]]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the server writes; raises DecodeError for anything else (B-06)."""
        found = cls()
        for part in filter(None, re.sub(r"\s", "", text).split(",")):
            uuid, *words = part.split(":")
            try:
                uuid = str(UUID(uuid))
            except ValueError:
                raise DecodeError(f"{part!r} is not a GTID set.") from None
            tag = ""
            for word in words:
                if is_tag(word.lower()):
                    tag = word.lower()
                    continue
                first, dash, last = word.partition("-")
                if not _NUMBER.fullmatch(first) or (dash and not _NUMBER.fullmatch(last)):
                    raise DecodeError(f"{part!r} is not a GTID set.")
                if max(int(first), int(last or 0)) > _MOST_NUMBER:
                    raise DecodeError(f"{part!r} is not a GTID set: there are no transactions of such numbers.")
                if int(last or first) >= int(first) > 0:
                    found._add_interval((uuid, tag), int(first), int(last or first))
        return found

    def __str__(self) -> str:
        by_uuid: dict[str, list[str]] = {}
        for (uuid, tag), intervals in sorted(self.intervals.items()):
            words = by_uuid.setdefault(uuid, [uuid])
            words += [tag] if tag else []
            words += [str(first) if first == last else f"{first}-{last}" for first, last in intervals]
        return ",".join(":".join(words) for words in by_uuid.values())

    def add(self, gtid: Gtid) -> None:
        """Put one transaction in."""
        source = (str(gtid.source[0]), str(gtid.source[1]))
        intervals = self.intervals.get(source)
        if intervals and intervals[-1][1] == gtid.number - 1:
            intervals[-1] = (intervals[-1][0], gtid.number)
        else:
            self._add_interval(source, gtid.number, gtid.number)

    def _add_interval(self, source: Source, first: int, last: int) -> None:
        merged: list[tuple[int, int]] = []
        for begin, end in sorted([*self.intervals.get(source, []), (first, last)]):
            if merged and begin <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        self.intervals[source] = merged

    def without(self, other: MySqlGtids) -> MySqlGtids:
        """What is in this set and not in the other."""
        left = MySqlGtids()
        for source, intervals in self.intervals.items():
            for first, last in intervals:
                at = first
                for begin, end in other.intervals.get(source, []):
                    if end < at or begin > last:
                        continue
                    if begin > at:
                        left._add_interval(source, at, begin - 1)
                    at = end + 1
                if at <= last:
                    left._add_interval(source, at, last)
        return left

    def exceeds(self, other: str) -> bool:
        """Whether it has a transaction that another set, as the server writes it, has not."""
        return bool(self.without(MySqlGtids.parse(other)))

    def __bool__(self) -> bool:
        return bool(self.intervals)

    def encode(self) -> bytes:
        """As COM_BINLOG_DUMP_GTID wants it (Gtid_set::encode in sql/rpl_gtid_set.cc).

        Without tags every source is its UUID and its half-open intervals. Where a tag occurs, the format's number is in
        the first and the last byte of the count, and each source has the length of its tag, doubled, and the tag.
        """
        tagged = any(tag for _, tag in self.intervals)
        count = len(self.intervals)
        pieces = [struct.pack("<Q", 1 | count << 8 | 1 << 56 if tagged else count)]
        for (uuid, tag), intervals in sorted(self.intervals.items()):
            pieces.append(UUID(uuid).bytes)
            if tagged:
                pieces += [bytes([len(tag) << 1]), tag.encode()]
            pieces.append(struct.pack("<Q", len(intervals)))
            pieces += [struct.pack("<QQ", first, last + 1) for first, last in intervals]
        return b"".join(pieces)


@dataclass(slots=True)
class MariaDbGtids:
    """For each replication domain the last transaction: `domain-server-sequence`."""

    domains: dict[int, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `0-1-5,1-2-3`; raises DecodeError for anything else."""
        found = cls()
        for part in filter(None, re.sub(r"\s", "", text).split(",")):
            words = part.split("-")
            if len(words) != 3 or not all(map(_NUMBER.fullmatch, words)):
                raise DecodeError(f"{part!r} is not a GTID of MariaDB.")
            domain, server, sequence = map(int, words)
            if max(domain, server) > _MOST_ID or sequence > _MOST_SEQUENCE:
                raise DecodeError(f"{part!r} is not a GTID of MariaDB: its numbers are too large.")
            if domain not in found.domains or found.domains[domain][1] < sequence:
                found.domains[domain] = (server, sequence)
        return found

    def __str__(self) -> str:
        return ",".join(f"{domain}-{server}-{number}" for domain, (server, number) in sorted(self.domains.items()))

    def add(self, gtid: Gtid) -> None:
        """Move a domain on."""
        self.domains[int(gtid.source[0])] = (int(gtid.source[1]), gtid.number)

    def exceeds(self, other: str) -> bool:
        """Whether it has a transaction that another set, as the server writes it, has not."""
        theirs = MariaDbGtids.parse(other).domains
        return any(number > theirs.get(domain, (0, 0))[1] for domain, (_, number) in self.domains.items())

    def __bool__(self) -> bool:
        return bool(self.domains)
