"""The seam to a database that keeps tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc.model.schema import Column, TableName, TableSchema
from cdc.tables.failures import Failing
from cdc.typed.codec import Codec
from cdc.typed.fitting import Reading, Readings

if TYPE_CHECKING:
    from cdc.tables.table import TargetTable


@dataclass(frozen=True, slots=True)
class Input:
    """Columns that go into a statement under names of their own.

    Attributes:
        columns: name in the statement -> index of the table's column whose type its values have.
        data: Arrow arrays of one length by those names, and whatever else the statement reads.
    """

    columns: dict[str, int]
    data: dict[str, pa.Array]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a database can do, as data.

    Attributes:
        sees_case: names that differ in case alone are different ones.
        row_id: the column that tells rows apart, which no table may have as its own; None if each table may have any.
        longest_name: bytes of a name, of which the database cuts off more; None if it takes any.
        own_columns: that every table has by itself.
        others_build_on: others give rights to tables and make indexes and views of them, which go with a table.
    """

    sees_case: bool
    row_id: str | None
    longest_name: int | None = None
    own_columns: frozenset[str] = frozenset()
    others_build_on: bool = False


class Database(Failing, Protocol):
    """One open database with tables.

    Attributes:
        product: what the database is called, in messages.
        place: which one it is, in messages.
        copies: in how many tables of the database the columns of a table are; set by the layout that keeps them so.
    """

    product: str
    place: str
    abilities: Abilities
    copies: int

    def open(self) -> None:
        """Take the lease.

        Raises:
            TargetBusy: another process has it.
            UsageError: this is no such database.
        """

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self, note: str = "") -> None:
        """Make it durable. If that fails, it has been rolled back.

        Args:
            note: what the database may keep with it, where it keeps such things: a position.
        """

    def rollback(self) -> None:
        """Give it up."""

    def close(self) -> None:
        """Let go of the lease. May be called twice."""

    def is_taken(self, failure: Exception) -> bool:
        """Whether a statement failed since there is something else of the name that it was to make."""

    def columns(self, table: TableName) -> dict[str, str]:
        """Names and types of a table's columns, or a view's, in their order; empty if there is no such table."""

    def names(self) -> set[TableName]:
        """The names of all tables and views, as the database compares them."""

    def make_room(self, schema: TableSchema) -> None:
        """A table with these columns is about to be used."""

    def before_changes(self, schema: TableSchema) -> None:
        """Changes of a table are about to be written."""

    def committed(self, *, is_copy: bool) -> None:
        """Everything is durable.

        Args:
            is_copy: it was nothing but rows of a copy.
        """


class Digesting(Protocol):
    """What digests rows: questions, and the expressions that they are made of.

    Attributes:
        product: what the database is called, in messages.
    """

    product: str

    def ask(self, query: exp.Expr | str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""

    def digest_text(self, column: Column, codec: Codec) -> exp.Expression:
        """The text of a value that goes into a row's digest (`cdc.model.parts.Digest`)."""

    def byte_length(self, text: exp.Expression) -> exp.Expression:
        """How many bytes a text has."""

    def concatenated(self, texts: Sequence[exp.Expression]) -> exp.Expression:
        """Texts in a row; those that are NULL count as empty."""

    def hashed(self, text: exp.Expression, digits: int) -> exp.Expression:
        """The first hexadecimal digits of a text's SHA-256 as a number that is not negative."""

    def bucket(self, hashed: exp.Expression) -> exp.Expression:
        """A number modulo `cdc.model.parts.BUCKETS`."""

    def total(self, hashed: exp.Expression) -> exp.Expression:
        """The sum of such numbers, exact, as a text."""


class Recalling(Digesting, Protocol):
    """What answers questions about the past: what is said in another way by each database.

    Attributes:
        address: of the database, as a command has it.
    """

    address: str

    def micros(self, time: exp.Expression) -> exp.Expression:
        """A time as microseconds since the Unix epoch."""

    def shown(self, micros: exp.Expression) -> exp.Expression:
        """Such a number as people read it: in UTC, whatever the session's zone."""

    def as_json(self, value: exp.Expression, sql_type: str) -> exp.Expression:
        """A value of a type as JSON has it: numbers and booleans as they are, everything else as text."""

    def is_written(self, column: str, sql_type: str, text: str) -> exp.Condition:
        """Whether a column of a type has the value that a text of `as_json` stands for."""

    def each(self, query: exp.Expr) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, of which only some are in memory at a time."""


class Publishing(Protocol):
    """What makes views and functions for users, inside whatever transaction is open. A new one takes the place of one
    that is there."""

    def make_view(self, view: TableName, query: exp.Query) -> None:
        """Make a view."""

    def make_lookup(self, function: TableName, text: str, number: str, query: exp.Query) -> None:
        """Make a function of one whole number, which is the first value of a query's only row; unless the second one is
        NULL, to call the function is an error that says that text.

        Args:
            text, number: columns of the query that stand for what the function is given; the latter is -1 if it is
                left out.
        """

    def make_rows(self, function: TableName, parameter: str, columns: Mapping[str, Codec], query: exp.Query) -> None:
        """Make a function whose rows are those of a query.

        Args:
            parameter: a column of the query that stands for the text that the function is given.
            columns: that the rows have.
        """

    def drop_rows(self, function: TableName) -> None:
        """Remove such a function, if it is there."""


class Engine(Database, Recalling, Publishing, Protocol):
    """A database whose rows change where they are, in whatever transaction is open. Statements are sqlglot's
    expressions, or what `render` made of them, or texts in DuckDB's words with `?` for values."""

    def render(self, statement: exp.Expr) -> str:
        """The text of a statement, to be run more than once."""

    def run(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> int:
        """Run a statement; how many rows it changed."""

    def numbers(self, query: exp.Expr | str) -> list[np.ndarray]:
        """The columns, int64[n] each, of a query for whole numbers that are not NULL."""

    def made(self, table: TableName, key: Sequence[str], *, is_unique: bool) -> None:
        """A table was made, or has got another shape: its rows are to be found by these columns.

        Args:
            is_unique: no two rows have the same values in them.
        """

    def changed(self, value: exp.Expression, held: Codec, to: Codec) -> exp.Expression | None:
        """A value in another type, NULL where that has no place for it; None if no value is the same in both types."""

    def retype(
        self, table: TableName, column: str, codec: Codec, using: exp.Expression, views: Sequence[TableName]
    ) -> None:
        """Give a column the type of a codec, with what an expression makes of its values.

        Args:
            views: that show it, and are made again afterwards: a database that cannot do it under them removes them.
        """

    # --- values -----------------------------------------------------------------------------------------------------

    def codec(self, column: Column) -> Codec:
        """The codec that a column begins with."""

    def codec_of(self, sql_type: str) -> Codec | None:
        """The codec of a column that is there; None if no codec has that type."""

    @property
    def text(self) -> Codec:
        """The codec that holds every value as the source's text."""

    def visible(self, rows: Input, table: TargetTable | None = None) -> AbstractContextManager[None]:
        """Let statements see Arrow columns as `cdc.tables.sql.ROWS`.

        Args:
            table: whose columns those of `rows.columns` are.
        """

    def fit(self, table: TargetTable, rows: Input) -> Readings:
        """How the values of some columns are to be read in statements; widens the table's columns that cannot hold
        them."""

    def careful(self, rows: Input) -> Readings:
        """The same, for rows to be compared with those that are there: a value that cannot be there becomes NULL."""

    def read(self, table: TargetTable, index: int, name: str, reading: Reading) -> exp.Expression:
        """The value that ROWS has under a name for a column of a table."""
