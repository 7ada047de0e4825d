"""What the generators know of the tables that are there, whatever the server."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        type: as the server writes it.
        labels: of an enum.
        is_written: the server writes it: generated, or an identity that is always.
    """

    name: str
    type: str
    is_nullable: bool
    is_written: bool
    is_generated: bool
    labels: tuple[str, ...] = ()

    @property
    def is_integer(self) -> bool:
        return self.type.split("(")[0].split()[0] in ("int", "integer", "bigint", "smallint", "tinyint", "mediumint")

    @property
    def is_text(self) -> bool:
        return self.type.startswith(("text", "varchar", "char", "character", "mediumtext", "longtext"))


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Attributes:
        kind: r ordinary, p partitioned.
        parent: the table that it is a partition of.
        partitions: names of its own.
        key: columns of the primary key.
    """

    name: str
    kind: str
    parent: str | None
    partitions: tuple[str, ...]
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def free(self) -> list[Column]:
        """Columns that are not of the key."""
        return [column for column in self.columns if column.name not in self.key]

    @property
    def plain(self) -> list[Column]:
        """Columns that statements may write."""
        return [column for column in self.columns if not column.is_written]


class NothingToChoose(Exception):
    """There is no table or column for a statement of that kind now."""


class RandomRows:
    """Statements that change rows of a table, whatever its columns are by now."""

    def __init__(self, rng: random.Random, value: Callable[[Column], str], *, ignore: str) -> None:
        """`ignore` is what lets an INSERT pass over keys that are there, before INTO and at the end, with a comma between."""
        self._rng = rng
        self._value = value
        self._before, self._after = ignore.split(",")

    def any(self, table: Table) -> str:
        """One of them; raises NothingToChoose."""
        kinds = [self.insert, self.insert, self.update, self.update, self.move, self.delete]
        return self._rng.choice(kinds)(table)

    def insert(self, table: Table) -> str:
        columns = table.plain
        if not columns:
            raise NothingToChoose
        rows = ", ".join(
            "(" + ", ".join(self._value(column) for column in columns) + ")" for _ in range(self._rng.randint(1, 3))
        )
        names = ", ".join(column.name for column in columns)
        return f"INSERT {self._before}INTO {table.name} ({names}) VALUES {rows}{self._after}"

    def update(self, table: Table) -> str:
        columns = [column for column in table.plain if column.name not in table.key]
        if not columns:
            raise NothingToChoose
        column = self._rng.choice(columns)
        return f"UPDATE {table.name} SET {column.name} = {self._value(column)}{self._where(table)}"

    def move(self, table: Table) -> str:
        """A change of keys."""
        key = self._number(table)
        return f"UPDATE {table.name} SET {key} = {key} + 40{self._where(table)}"

    def delete(self, table: Table) -> str:
        return f"DELETE FROM {table.name}{self._where(table)}"

    def _where(self, table: Table) -> str:
        divisor = self._rng.randint(2, 5)
        return f" WHERE {self._number(table)} % {divisor} = {self._rng.randrange(divisor)}"

    def _number(self, table: Table) -> str:
        numbers = [name for name in table.key if table.column(name).is_integer]
        numbers = numbers or [column.name for column in table.plain if column.is_integer]
        if not numbers:
            raise NothingToChoose
        return numbers[0]
