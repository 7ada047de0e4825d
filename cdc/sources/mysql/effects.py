"""What a statement can do to tables: the words in which `ddl` says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cdc.model.schema import TableName


@dataclass(frozen=True, slots=True)
class AddColumn:
    """A column came: its definition, and the column that it stands behind (None: the last; '': it is the first)."""

    name: str
    definition: str
    after: str | None


@dataclass(frozen=True, slots=True)
class DropColumn:
    """A column went."""

    name: str


@dataclass(frozen=True, slots=True)
class RenameColumn:
    """A column has another name, and nothing else."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class ChangeColumn:
    """A column has another definition, and maybe another name and place: as in `AddColumn`; None where it was."""

    old: str
    new: str
    definition: str
    after: str | None


@dataclass(frozen=True, slots=True)
class DropKey:
    """The primary key went, and no column with it."""


@dataclass(frozen=True, slots=True)
class AddKey:
    """Some columns, whole ones, are the primary key."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewDefault:
    """A column has another default: its definition, or none if it has none, or one of another form."""

    name: str
    definition: str | None


@dataclass(frozen=True, slots=True)
class NewCharset:
    """Columns that come from now on have another character set if they name none."""


@dataclass(frozen=True, slots=True)
class DropIndex:
    """An index went, or a constraint that may be one. The primary key's is `PRIMARY`."""

    name: str


@dataclass(frozen=True, slots=True)
class RenameIndex:
    """An index has another name."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Moved:
    """Rows may have come or gone that the log does not have; the columns are as they were."""

    what: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Something happened to columns, and maybe to rows, that the log has no more of than this statement."""

    what: str


Action = (
    AddColumn
    | DropColumn
    | RenameColumn
    | ChangeColumn
    | DropKey
    | AddKey
    | NewDefault
    | NewCharset
    | DropIndex
    | RenameIndex
    | Moved
    | Rewritten
)


@dataclass(frozen=True, slots=True)
class Truncated:
    """All rows of a table went."""

    table: TableName


@dataclass(frozen=True, slots=True)
class Dropped:
    """A table went, or all tables of a database: then the name is empty."""

    table: TableName


@dataclass(frozen=True, slots=True)
class Created:
    """A table came; `is_new` says that there is none of that name that was there before."""

    table: TableName
    is_new: bool


@dataclass(frozen=True, slots=True)
class Renamed:
    """Tables have other names, from the old name to the new one, one after the other."""

    names: tuple[tuple[TableName, TableName], ...]


@dataclass(frozen=True, slots=True)
class Altered:
    """A table was altered by some actions at once; none of them if no row and no column has to do with it."""

    table: TableName
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Unproven:
    """A statement that may have changed rows without an event.

    Attributes:
        kind: its first words.
        tables: that it may name.
        databases: in all tables of these it may have changed rows, by what it calls or sets off.
        reshapes: the tables that it names may have other columns too.
    """

    kind: str
    tables: frozenset[TableName]
    databases: frozenset[str]
    reshapes: bool

    def may_change(self, table: TableName) -> bool:
        """Whether rows of the table may be others than before."""
        return table in self.tables or table.schema in self.databases

    def may_reshape(self, table: TableName) -> bool:
        """Whether its columns may be."""
        return self.reshapes and table in self.tables


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A statement whose words cannot be made out.

    Attributes:
        text: all of it.
        database: the one in use.
    """

    text: str
    database: str

    @property
    def kind(self) -> str:
        """Its first word, if it is one."""
        first = (self.text.split(None, 1) or [""])[0].upper()
        return first if first.isidentifier() else ""

    def may_change(self, table: TableName) -> bool:
        """Whether rows of the table may be others than before."""
        return table.schema == self.database or self.may_reshape(table)

    def may_reshape(self, table: TableName) -> bool:
        """Whether its columns may be: it has the table's name in it, and is in its database or has that one's name."""
        return self._has(table.name) and (table.schema == self.database or self._has(table.schema))

    def _has(self, name: str) -> bool:
        spellings = {name, name.replace("`", "``"), name.replace('"', '""')}
        return any(re.search(rf"(?<![\w$]){re.escape(word)}(?![\w$])", self.text, re.IGNORECASE) for word in spellings)


Effect = Truncated | Dropped | Created | Renamed | Altered | Unproven | Unreadable
