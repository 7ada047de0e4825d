"""Moments that a person names: a time, or a place as the source writes it. All commands read them here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cdc.errors import UsageError

HOW_TO_WRITE = (
    "Write a time as 2026-01-31 12:00:00+00 (UTC if it names no zone) or @1769860800 (seconds since 1970), a position "
    "as the source does: 0/16B3748 (PostgreSQL), a GTID, binlog.000001:4."
)

_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
_EPOCH = re.compile(r"@(\d{1,18})(?:\.(\d{1,6}))?")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_FILE = re.compile(r"[^/:]+\.\d{6,}:\d{1,19}")
_UUID = r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_GTIDS = re.compile(rf"{_UUID}(:\w+(-\d+)?)+(,\s*{_UUID}(:\w+(-\d+)?)+)*|\d+-\d+-\d+(,\s*\d+-\d+-\d+)*")
_BEGIN = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a source.

    Attributes:
        text: as it was written.
        time: microseconds since the Unix epoch; None for a position.
    """

    text: str
    time: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a time, which is UTC unless it names a zone, or a position; raises UsageError for anything else.

        What looks like a date is one, even where a GTID of MariaDB could be written so.
        """
        text = text.strip()
        if (found := _EPOCH.fullmatch(text)) is not None:
            return cls(text, int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0")))
        if _DATE.fullmatch(text):
            try:
                moment = datetime.fromisoformat(text)
            except ValueError as error:
                raise UsageError(f"{text!r} is not a time.", hint=HOW_TO_WRITE) from error
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            return cls(text, (moment - _BEGIN) // _MICROSECOND)
        if not any(form.fullmatch(text) for form in (_LSN, _FILE, _GTIDS)):
            raise UsageError(f"{text!r} is neither a time nor a position.", hint=HOW_TO_WRITE)
        return cls(text)

    @property
    def lsn(self) -> int | None:
        """Where it is in PostgreSQL's log; None if it is not written so."""
        found = _LSN.fullmatch(self.text)
        return int(found[1], 16) << 32 | int(found[2], 16) if found is not None else None

    def refuse_future(self, now: int) -> None:
        """Raise UsageError for a time that has not come yet.

        Args:
            now: microseconds since the Unix epoch, by the source's clock.
        """
        if self.time is not None and self.time > now:
            raise UsageError(
                f"{self} is in the future: it is {written(now)} there.",
                hint="Give a moment that has passed.",
            )

    def __str__(self) -> str:
        return written(self.time) if self.time is not None else self.text


def written(micros: int) -> str:
    """A time in microseconds since the Unix epoch as people read it, with its zone."""
    try:
        return (_BEGIN + micros * _MICROSECOND).isoformat(" ").replace("+00:00", "+00")
    except OverflowError:
        return f"@{micros / 1_000_000:.6f}"
