"""Dates and times, from their parts or as the log packs them, to Arrow; those of no calendar (2020-00-15) to text.

Packed forms: my_time.cc of the server. Tables from before MySQL 5.6 keep older ones until they are rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cdc.errors import DecodeError
from cdc.sources.lockstep import Buffer
from cdc.sources.mysql.rows import Field
from cdc.sources.mysql.tablemap import Wire, WireColumn

_MICROS = 1_000_000
_MOST_HOURS = 838  # of a TIME
_STORED = (0, 10_000, 10_000, 100, 100, 1, 1)  # microseconds in one unit of the stored fraction, by fractional digits
_DAYS_IN_MONTH = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Parts:
    """Calendar fields of n values, int64[n] each."""

    year: np.ndarray
    month: np.ndarray
    day: np.ndarray
    hour: np.ndarray
    minute: np.ndarray
    second: np.ndarray
    micros: np.ndarray

    def in_calendar(self, valid: np.ndarray) -> bool:
        """Whether every date exists: without NO_ZERO_DATE the server takes many that do not (B-51)."""
        year, month, day = self.year, self.month, self.day
        leap = (month == 2) & (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
        exists = (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1)
        exists &= day <= _DAYS_IN_MONTH[np.clip(month, 0, 12)] + leap
        return bool((exists | ~valid).all())

    def refuse_impossible(self, valid: np.ndarray) -> None:
        """Raise DecodeError if a field has a number that no server takes, whatever its mode."""
        wrong = (self.year < 0) | (self.year > 9999) | (self.month > 12) | (self.day > 31)
        wrong |= (self.hour > 23) | (self.minute > 59) | (self.second > 59) | (self.micros >= _MICROS)
        _refuse(wrong & valid)

    def days(self, valid: np.ndarray) -> np.ndarray:
        """int64[n]: days since the Unix epoch."""
        months = np.where(valid, (self.year - 1970) * 12 + self.month - 1, 0)
        first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        days: np.ndarray = first + np.where(valid, self.day - 1, 0)
        return days

    def microseconds(self, valid: np.ndarray) -> np.ndarray:
        """int64[n]: since the Unix epoch."""
        seconds = self.days(valid) * 86400 + self.hour * 3600 + self.minute * 60 + self.second
        micros: np.ndarray = seconds * _MICROS + self.micros
        return micros

    def date_text(self, i: int) -> str:
        return f"{self.year[i]:04d}-{self.month[i]:02d}-{self.day[i]:02d}"

    def text(self, i: int) -> str:
        clock = f"{self.hour[i]:02d}:{self.minute[i]:02d}:{self.second[i]:02d}"
        return f"{self.date_text(i)} {clock}{fraction_text(int(self.micros[i]))}"


def _refuse(wrong: np.ndarray) -> None:
    if wrong.any():
        raise DecodeError("The server sent a date or a time that cannot exist.")


def date_array(parts: Parts, valid: np.ndarray) -> pa.Array:
    """date32, or text if a date is not in the calendar."""
    parts.refuse_impossible(valid)
    if not parts.in_calendar(valid):
        return _texts(valid, parts.date_text)
    return native(pa.date32(), parts.days(valid).astype(np.int32), valid)


def datetime_array(parts: Parts, valid: np.ndarray) -> pa.Array:
    """Naive timestamps, or text if one is not in the calendar."""
    parts.refuse_impossible(valid)
    if not parts.in_calendar(valid):
        return _texts(valid, parts.text)
    return native(pa.timestamp("us"), parts.microseconds(valid), valid)


def moment_array(parts: Parts, valid: np.ndarray) -> pa.Array:
    """Timestamps in UTC; text if one is 0000-00-00 00:00:00, which is no moment."""
    parts.refuse_impossible(valid)
    if not parts.in_calendar(valid):
        return _texts(valid, lambda i: f"{parts.text(i)}+00")
    return native(pa.timestamp("us", "UTC"), parts.microseconds(valid), valid)


def duration_array(negative: np.ndarray, seconds: np.ndarray, micros: np.ndarray, valid: np.ndarray) -> pa.Array:
    """Durations of microseconds from their sign and their size."""
    total = seconds * _MICROS + micros
    return native(pa.duration("us"), np.where(negative, -total, total), valid)


def dates(buffer: Buffer, field: Field) -> pa.Array:
    """DATE: three bytes, of day, month and year."""
    packed = buffer.at("<u4")[field.start].astype(np.int64) & 0xFFFFFF
    zero = np.zeros(len(packed), dtype=np.int64)
    return date_array(Parts(packed >> 9, (packed >> 5) & 15, packed & 31, zero, zero, zero, zero), field.valid)


def datetimes(buffer: Buffer, field: Field, column: WireColumn) -> pa.Array:
    """DATETIME: naive, with up to six fractional digits."""
    if column.wire is Wire.DATETIME and column.length:
        return datetime_array(_unpacked(_high_resolution(buffer, field, column)), field.valid)
    if column.wire is Wire.DATETIME:  # the old form: YYYYMMDDhhmmss as one number
        number = buffer.at("<i8")[field.start].astype(np.int64)
        date, time = number // 1_000_000, number % 1_000_000
        day = (date // 10_000, date // 100 % 100, date % 100)
        clock = (time // 10_000, time // 100 % 100, time % 100)
        return datetime_array(Parts(*day, *clock, np.zeros(len(number), dtype=np.int64)), field.valid)
    packed = _big(buffer, field.start, 5) - 0x8000000000
    months = packed >> 22
    parts = Parts(
        months // 13,
        months % 13,
        (packed >> 17) & 31,
        (packed >> 12) & 31,
        (packed >> 6) & 63,
        packed & 63,
        _fraction(buffer, field.start + 5, column.length),
    )
    return datetime_array(parts, field.valid)


def timestamps(buffer: Buffer, field: Field, column: WireColumn) -> pa.Array:
    """TIMESTAMP: seconds since the Unix epoch. 0 is no moment but 0000-00-00 00:00:00 (B-51)."""
    if column.wire is Wire.TIMESTAMP and column.length:
        seconds = _big(buffer, field.start, 4)
        micros = _big(buffer, field.start + 4, column.size - 4) * 10 ** (6 - column.length)
    elif column.wire is Wire.TIMESTAMP:
        seconds = buffer.at("<u4")[field.start].astype(np.int64)
        micros = np.zeros(len(seconds), dtype=np.int64)
    else:
        seconds = buffer.at(">u4")[field.start].astype(np.int64)
        micros = _fraction(buffer, field.start + 4, column.length)
    _refuse(field.valid & (micros >= _MICROS))
    if not (field.valid & (seconds == 0) & (micros == 0)).any():
        return native(pa.timestamp("us", "UTC"), seconds * _MICROS + micros, field.valid)

    def text(i: int) -> str:
        if seconds[i] == 0 and micros[i] == 0:
            return "0000-00-00 00:00:00+00"
        moment = str(np.datetime64(int(seconds[i]), "s")).replace("T", " ")
        return f"{moment}{fraction_text(int(micros[i]))}+00"

    return _texts(field.valid, text)


def times(buffer: Buffer, field: Field, column: WireColumn) -> pa.Array:
    """TIME: a duration with a sign. Whole and fraction are one number, so that -0.1 s is not 0.9 s too much (B-50)."""
    if column.wire is Wire.TIME and column.length:
        total = _high_resolution(buffer, field, column) - (_MOST_HOURS + 1) * 3600 * _MICROS
        _refuse(field.valid & (np.abs(total) >= (_MOST_HOURS + 1) * 3600 * _MICROS))
        return native(pa.duration("us"), total, field.valid)
    if column.wire is Wire.TIME:  # the old form: hhmmss as one number
        packed = buffer.at("<u4")[field.start].astype(np.int64) & 0xFFFFFF
        number = np.where(packed >= 0x800000, packed - 0x1000000, packed)
        size = np.abs(number)
        seconds = size // 10_000 * 3600 + size // 100 % 100 * 60 + size % 100
        return duration_array(number < 0, seconds, np.zeros(len(size), dtype=np.int64), field.valid)
    width = (column.length + 1) // 2
    number = _big(buffer, field.start, 3 + width) - (0x800000 << 8 * width)
    size = np.abs(number)
    whole, rest = size >> 8 * width, size & ((1 << 8 * width) - 1)
    hours, minutes, second, micros = whole >> 12, (whole >> 6) & 63, whole & 63, rest * _STORED[column.length]
    _refuse(field.valid & ((hours > _MOST_HOURS) | (minutes > 59) | (second > 59) | (micros >= _MICROS)))
    return duration_array(number < 0, hours * 3600 + minutes * 60 + second, micros, field.valid)


def native(kind: pa.DataType, values: np.ndarray, valid: np.ndarray) -> pa.Array:
    """An Arrow array over NumPy values that have its layout, null where they are not valid."""
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [bitmap, pa.py_buffer(np.ascontiguousarray(values))])


def fraction_text(micros: int) -> str:
    """`.5`, without the zeros behind; nothing for none."""
    return f".{micros:06d}".rstrip("0") if micros else ""


def _fraction(buffer: Buffer, start: np.ndarray, digits: int) -> np.ndarray:
    """int64[n]: microseconds, from as many bytes as the digits take."""
    if digits == 0:
        return np.zeros(len(start), dtype=np.int64)
    return _big(buffer, start, (digits + 1) // 2) * _STORED[digits]


def _high_resolution(buffer: Buffer, field: Field, column: WireColumn) -> np.ndarray:
    """int64[n]: the microseconds that MariaDB's own temporal types count, of which they keep as many digits as they
    have (`Field_datetime_hires` and its like in MariaDB's sql/field.cc)."""
    micros: np.ndarray = _big(buffer, field.start, column.size) * 10 ** (6 - column.length)
    return micros


def _unpacked(micros: np.ndarray) -> Parts:
    """The calendar fields of a number that has 13 months in a year and 32 days in a month (`unpack_time`)."""
    seconds, rest = micros // _MICROS, micros % _MICROS
    days = seconds // 86400
    clock = (seconds // 3600 % 24, seconds // 60 % 60, seconds % 60, rest)
    return Parts(days // 32 // 13, days // 32 % 13, days % 32, *clock)


def _big(buffer: Buffer, start: np.ndarray, size: int) -> np.ndarray:
    """int64[n]: big-endian unsigned integers of up to 8 bytes, of which none is as large as int64."""
    value = np.zeros(len(start), dtype=np.int64)
    for byte in range(size):
        value = value << 8 | buffer.bytes[start + byte]
    return value


def _texts(valid: np.ndarray, text: Callable[[int], str]) -> pa.Array:
    """Value by value: only for a column that holds what no calendar has."""
    return pa.array([text(i) if there else None for i, there in enumerate(valid.tolist())], pa.string_view())
