"""Row images of a batch as JSON objects, one per change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.text import Piece, constant, joined, listed, literal, pick
from cdc.formats.values import Value
from cdc.model.arrays import LARGE
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.schema import Column, TableSchema

Spelling = Callable[[pa.Array, Column], Value]


class Images:
    """The row images of a batch.

    Args:
        spell: how a column's values are written.
        placeholder: JSON that stands for a value that the log left out; None to leave its column out, too.
    """

    def __init__(self, batch: ChangeBatch, spell: Spelling, placeholder: str | None = None) -> None:
        schema = self._schema = batch.schema
        self._batch = batch
        self._every = range(len(schema.columns))
        self._known_before = self._every if schema.full_before else schema.key
        self._placeholder = placeholder
        self._after = _Rows(batch.after, schema, spell, placeholder) if batch.after is not None else None
        self._before = _Rows(batch.before, schema, spell, placeholder) if batch.before is not None else None

    @property
    def after(self) -> pa.Array:
        """Objects; null where the change has no new row."""
        return self._of(self._after, self._batch.after_row, lambda rows: rows.objects(self._every))

    @property
    def before(self) -> pa.Array:
        """Objects, of the key alone if the log has no more; null where it has nothing."""
        if self._placeholder is None:
            return self._of(self._before, self._batch.before_row, lambda rows: rows.objects(self._known_before))
        return self._of(
            self._before, self._batch.before_row, lambda rows: rows.objects(self._every, self._known_before)
        )

    @cached_property
    def new_key(self) -> pa.Array:
        """Objects of the key after each change; where the change has no new row, or that does not tell, before it."""
        return self._first(self._key(self._after, self._batch.after_row), self.old_key)

    @cached_property
    def old_key(self) -> pa.Array:
        """Objects of the key before each change, where the log says it; null elsewhere, as for a table without one."""
        return self._key(self._before, self._batch.before_row)

    def _key(self, rows: _Rows | None, places: np.ndarray) -> pa.Array:
        if not self._schema.key:
            return pa.nulls(len(places), LARGE)
        return self._of(rows, places, lambda found: found.keys(self._schema.key))

    @staticmethod
    def _first(wanted: pa.Array, otherwise: pa.Array) -> pa.Array:
        return pc.coalesce(wanted, otherwise) if wanted.null_count else wanted

    def texts_after(self, which: Mapping[int, str]) -> dict[int, np.ndarray]:
        """bool[n] by column, of those that have any: which changes have JSON in the new row that begins as given."""
        return self._texts(self._after, self._batch.after_row, which)

    def texts_before(self, which: Mapping[int, str]) -> dict[int, np.ndarray]:
        """The same of the old row, as far as it is known."""
        known = {index: begin for index, begin in which.items() if index in self._known_before}
        return self._texts(self._before, self._batch.before_row, known)

    @property
    def key_is_of_after(self) -> np.ndarray:
        """bool[n]: whether `new_key` is of the new row."""
        found: np.ndarray = self._key(self._after, self._batch.after_row).is_valid().to_numpy(zero_copy_only=False)
        return found

    @staticmethod
    def _texts(rows: _Rows | None, places: np.ndarray, which: Mapping[int, str]) -> dict[int, np.ndarray]:
        if rows is None:
            return {}
        found = {index: texts for index, begin in which.items() if (texts := rows.texts(index, begin)).any()}
        return {index: texts[places] & (places != ABSENT) for index, texts in found.items()}

    @property
    def moved(self) -> np.ndarray:
        """bool[n]: which changes are updates to another key."""
        batch = self._batch
        both = (batch.op == Op.UPDATE) & (batch.before_row != ABSENT)
        if not both.any() or not self._schema.key:
            return np.zeros(len(batch), dtype=bool)
        differs: np.ndarray = pc.not_equal(self.old_key, self.new_key).fill_null(False).to_numpy(zero_copy_only=False)
        moved: np.ndarray = both & differs
        return moved

    @property
    def unchanged(self) -> pa.Array | str:
        """Lists of the names of the columns that the log left out of the new row; a text if it is one for all."""
        if self._after is None or not self._after.is_partial.any():
            return "[]"
        lists = joined("[", self._after.left_out(), "]")
        return pick(lists, self._batch.after_row).fill_null("[]")

    @property
    def after_is_partial(self) -> np.ndarray:
        """bool[n]: which changes have a new row without some of its values."""
        return self._is_partial(self._after, self._batch.after_row)

    @property
    def before_is_partial(self) -> np.ndarray:
        """bool[n]: which changes have a whole old row without some of its values."""
        return self._is_partial(self._before, self._batch.before_row)

    @staticmethod
    def _is_partial(rows: _Rows | None, places: np.ndarray) -> np.ndarray:
        if rows is None or not rows.is_partial.any():
            return np.zeros(len(places), dtype=bool)
        found: np.ndarray = rows.is_partial[places] & (places != ABSENT)
        return found

    @staticmethod
    def _of(rows: _Rows | None, places: np.ndarray, make: Callable[[_Rows], pa.Array]) -> pa.Array:
        return pick(make(rows), places) if rows is not None else pa.nulls(len(places), LARGE)


class _Rows:
    """Rows of one table; each column is spelled once."""

    def __init__(self, rows: Rows, schema: TableSchema, spell: Spelling, placeholder: str | None) -> None:
        self._rows = rows
        self._schema = schema
        self._spell = spell
        self._placeholder = placeholder
        self._values: dict[int, Value] = {}
        self._names = [literal(column.name) for column in schema.columns]

    @cached_property
    def is_partial(self) -> np.ndarray:
        """bool[m]: which rows lack a value."""
        masks = [mask for mask in self._rows.unchanged if mask is not None]
        return np.logical_or.reduce(masks) if masks else np.zeros(len(self._rows), dtype=bool)

    def objects(self, columns: Sequence[int], known: Sequence[int] | None = None) -> pa.Array:
        """Objects of some columns; those that are not known are null in all of them."""
        masks = self._rows.unchanged
        if self._placeholder is None and any(masks[index] is not None for index in columns):
            members = [self._member(index) for index in columns]
            return joined("{", listed(members), "}")
        pieces: list[Piece] = ["{"]
        for index in columns:
            comma = "" if len(pieces) == 1 else ","
            if known is not None and index not in known:
                pieces.append(f"{comma}{self._names[index]}:null")
                continue
            value = self._value(index)
            pieces += [f"{comma}{self._names[index]}:{value.before}", value.text, value.after]
        return joined(*pieces, "}")

    def keys(self, key: Sequence[int]) -> pa.Array:
        """Objects of the key; null where a value of it is left out."""
        objects = self.objects(key)
        masks = [mask for index in key if (mask := self._rows.unchanged[index]) is not None]
        return pc.if_else(np.logical_or.reduce(masks), pa.scalar(None, LARGE), objects) if masks else objects

    def texts(self, index: int, begin: str) -> np.ndarray:
        """bool[m]: which values of a column begin so."""
        found: np.ndarray = pc.starts_with(self._value(index).whole, begin).to_numpy(zero_copy_only=False)
        return found

    def left_out(self) -> pa.Array:
        """The names of the columns that each row lacks, with commas between them."""
        lacking = [
            pc.if_else(mask, pa.scalar(name, LARGE), pa.scalar(None, LARGE))
            for mask, name in zip(self._rows.unchanged, self._names, strict=True)
            if mask is not None
        ]
        return listed(lacking)

    def _member(self, index: int) -> pa.Array:
        value = self._value(index)
        member = joined(f"{self._names[index]}:{value.before}", value.text, value.after)
        mask = self._rows.unchanged[index]
        return pc.if_else(mask, pa.scalar(None, LARGE), member) if mask is not None else member

    def _value(self, index: int) -> Value:
        if index not in self._values:
            value = self._spell(self._rows.columns[index], self._schema.columns[index])
            mask = self._rows.unchanged[index]
            if mask is not None and self._placeholder is not None:
                value = Value("", pc.if_else(mask, pa.scalar(self._placeholder, LARGE), value.whole), "")
            self._values[index] = value
        return self._values[index]


def or_null(objects: pa.Array) -> pa.Array:
    """Objects, with JSON's null where an object is missing."""
    if objects.null_count == len(objects):
        return constant("null", len(objects))
    return objects.fill_null("null") if objects.null_count else objects
