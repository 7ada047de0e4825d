"""Dates and times from the server's text, many at once, where all of a column are of the plain form that nearly all
are of: `2024-12-31` and `2024-12-31 23:59:59.123456+00`.

A target's database would take several times as long to find out that they are, and to read them. What is of another
form (infinity, BC, a year of five digits) leaves its whole column as text, for those who know all forms.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdc.model.schema import Kind
from cdc.sources.lockstep import Buffer

_TYPES = {Kind.DATE: pa.date32(), Kind.TIMESTAMP: pa.timestamp("us"), Kind.TIMESTAMPTZ: pa.timestamp("us", "UTC")}
_ZONE = "+00"  # of every timestamptz: a session's time zone is UTC
_DATE, _SECONDS, _POINT, _MOST_DIGITS = len("2024-12-31"), len("2024-12-31 23:59:59"), 1, 6
# Days since the Unix epoch of the first day of each month since the year 0, and of one month more.
_FIRST_DAY = np.arange("0000-01", "10000-02", dtype="datetime64[M]").astype("datetime64[D]").astype(np.int64)
_KEPT = np.array([(1 << 8 * digits) - 1 for digits in range(8)], dtype=np.uint64)  # bytes, by how many digits there are


def native(buffer: Buffer, kind: Kind, start: np.ndarray, length: np.ndarray, valid: np.ndarray) -> pa.Array | None:
    """The values at `start` (int64[n]), `length` (int64[n]) bytes long, as an Arrow array; None if one is not plain.

    Args:
        valid: bool[n], which values are not null.
    """
    if kind not in _TYPES or not valid.any():
        return None
    if not valid.all():
        some = int(np.argmax(valid))  # stands for those that are null
        start, length = np.where(valid, start, start[some]), np.where(valid, length, length[some])
    values = _dates(buffer, start, length) if kind is Kind.DATE else _moments(buffer, kind, start, length)
    if values is None:
        return None
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(_TYPES[kind], len(values), [bitmap, pa.py_buffer(values)])


def _dates(buffer: Buffer, start: np.ndarray, length: np.ndarray) -> np.ndarray | None:
    """int32[n]: days since the Unix epoch."""
    if (length != _DATE).any():
        return None
    found = buffer.at("V16")[start].view("<u8").reshape(-1, 2)
    ym, d = _Digits(found[:, 0], "dddd-dd-"), _Digits(found[:, 1], "dd")
    days, exists = _days(ym.pair(0) * 100 + ym.pair(2), ym.pair(5), d.pair(0))
    return days.astype(np.int32) if (exists & ym.fit & d.fit).all() else None


def _moments(buffer: Buffer, kind: Kind, start: np.ndarray, length: np.ndarray) -> np.ndarray | None:
    """int64[n]: microseconds since the Unix epoch."""
    if kind is Kind.TIMESTAMPTZ:
        length = length - len(_ZONE)
        zone = buffer.at("<u4")[start + np.maximum(length, 0)] & 0xFFFFFF
        if (zone != int.from_bytes(_ZONE.encode(), "little")).any():
            return None
    digits = length - _SECONDS - _POINT  # of the fraction; without one there is no point either
    if ((digits < 1) & (digits != -_POINT) | (digits > _MOST_DIGITS)).any():
        return None
    found = buffer.at("V32")[start].view("<u8").reshape(-1, 4)
    ym, dhm, s = (_Digits(found[:, i], form) for i, form in enumerate(("dddd-dd-", "dd dd:dd", ":dd")))
    days, exists = _days(ym.pair(0) * 100 + ym.pair(2), ym.pair(5), dhm.pair(0))
    hour, minute, second = dhm.pair(3), dhm.pair(6), s.pair(1)
    exists &= (hour < 24) & (minute < 60) & (second < 60) & ym.fit & dhm.fit & s.fit
    values = ((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000
    if (digits > 0).any():
        point = found[:, 2] >> 24 & 0xFF
        exists &= (digits < 0) | (point == ord("."))
        after = (found[:, 2] >> 32 | found[:, 3] << 32) ^ _Digits.ZEROS
        fraction = _Digits((after & _KEPT[np.maximum(digits, 0)]) ^ _Digits.ZEROS, "dddddd")
        last = after >> ((np.maximum(digits, 1) - 1) * 8).astype(np.uint64) & 0xFF
        exists &= fraction.fit & ((digits < 0) | (last != 0))  # the server ends it with its last digit that is not 0
        values += fraction.pair(0) * 10_000 + fraction.pair(2) * 100 + fraction.pair(4)
    return values if exists.all() else None


def _days(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64[n]: days since the Unix epoch; bool[n]: whether there is such a day."""
    at = np.minimum(year * 12 + np.maximum(month, 1) - 1, len(_FIRST_DAY) - 2)
    first = _FIRST_DAY[at]
    exists = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= _FIRST_DAY[at + 1] - first)
    return first + day - 1, exists


class _Digits:
    """The digits of n words (uint64[n]) of eight bytes in which other characters stand at fixed places.

    Attributes:
        fit: bool[n], whether each word begins as it should.
    """

    ZEROS = np.uint64(int.from_bytes(b"0" * 8, "little"))

    def __init__(self, words: np.ndarray, form: str) -> None:
        """
        Args:
            form: what the words begin with: `d` stands for a digit, anything else for itself.
        """
        of_form = np.uint64((1 << 8 * len(form)) - 1)
        blank = int.from_bytes(form.replace("d", "0").encode(), "little")
        digit = sum(0x0F << 8 * place for place, sign in enumerate(form) if sign == "d")
        self._values = (words & of_form) ^ np.uint64(blank)  # of digits their values, and 0 of all others
        carried = self._values + np.uint64(digit // 0x0F * 6)  # what is more than 9 comes to more than 15
        self.fit = (self._values | carried) & ~np.uint64(digit) == 0
        self._pairs = self._values * np.uint64(10) + (self._values >> np.uint64(8))

    def pair(self, place: int) -> np.ndarray:
        """int64[n]: the number that the two digits from a place on make."""
        number: np.ndarray = (self._pairs >> np.uint64(8 * place) & np.uint64(0xFF)).astype(np.int64)
        return number
