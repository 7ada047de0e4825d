"""How a table's shape follows a statement, or that it does not and the table has to be copied again."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from cdc.errors import UsageError
from cdc.model.schema import Column, Kind, TableName
from cdc.sources.mysql.defaults import Default, constant, without
from cdc.sources.mysql.effects import (
    Action,
    AddColumn,
    AddKey,
    ChangeColumn,
    DropColumn,
    DropIndex,
    DropKey,
    NewCharset,
    NewDefault,
    RenameColumn,
    RenameIndex,
    Rewritten,
)
from cdc.sources.mysql.state import TableState
from cdc.sources.mysql.types import keeps_values, logical_type, source_type

# sqlglot's names of types whose definition says all of it, and how information_schema writes them.
_PLAIN_TYPES = {
    "TINYINT": "tinyint",
    "SMALLINT": "smallint",
    "MEDIUMINT": "mediumint",
    "INT": "int",
    "BIGINT": "bigint",
    "UTINYINT": "tinyint unsigned",
    "USMALLINT": "smallint unsigned",
    "UMEDIUMINT": "mediumint unsigned",
    "UINT": "int unsigned",
    "UBIGINT": "bigint unsigned",
    "BOOLEAN": "tinyint(1)",
    "DOUBLE": "double",
    "FLOAT": "float",
    "DATE": "date",
    "JSON": "json",
    "DATETIME": "datetime",
    "TIME": "time",
    "VARCHAR": "varchar",
    "CHAR": "char",
    "TEXT": "text",
    "TINYTEXT": "tinytext",
    "MEDIUMTEXT": "mediumtext",
    "LONGTEXT": "longtext",
    "BLOB": "blob",
    "TINYBLOB": "tinyblob",
    "MEDIUMBLOB": "mediumblob",
    "LONGBLOB": "longblob",
    "VARBINARY": "varbinary",
    "BINARY": "binary",
    "DECIMAL": "decimal",
}
# Not TIMESTAMP: without explicit_defaults_for_timestamp it is never null, and filled with the moment of the statement.
_WITH_CHARSET = {"varchar", "char", "text", "tinytext", "mediumtext", "longtext"}
# How types may be written: the parser takes LONG, a MEDIUMTEXT, for BIGINT, and REAL, a DOUBLE, for FLOAT.
_SPELLED = frozenset(
    "TINYINT SMALLINT MEDIUMINT INT INTEGER BIGINT BOOL BOOLEAN DOUBLE FLOAT DATE JSON DATETIME TIME VARCHAR CHAR TEXT "
    "TINYTEXT MEDIUMTEXT LONGTEXT BLOB TINYBLOB MEDIUMBLOB LONGBLOB VARBINARY BINARY DECIMAL NUMERIC DEC".split()
)
_LONGEST = 16_383  # of VARCHAR: a longer one may become another type, by its character set and the session's modes
_FILLED = {Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64, Kind.TEXT}


class CopyAgain(Exception):
    """The statement does more than can be followed: the table has to be copied again."""


@dataclass(frozen=True, slots=True)
class Evolved:
    """A table after a statement.

    Attributes:
        entry: its shape from there on.
        fill: per identity of an added column the text that rows from before have in it.
        doubt: why values of those rows may be others than before; None if they are certain not to be.
    """

    entry: TableState
    fill: dict[int, str]
    doubt: str | None


def evolved(entry: TableState, actions: tuple[Action, ...], flavor: str) -> Evolved:
    """A table after some actions.

    Raises:
        CopyAgain: an action is not understood to the last word, so that it is not certain what the columns are.
    """
    if any(isinstance(action, Rewritten) for action in actions):
        raise CopyAgain
    if any(isinstance(action, NewCharset) for action in actions):
        entry = replace(entry, charset=None)
    entry = _with_indexes(entry, actions)
    before = entry.schema.columns
    entry, doubts = _changed(entry, actions, flavor)
    columns, defaults = _kept(entry, before, actions), entry.defaults
    moved = {action.new.lower() for action in actions if isinstance(action, ChangeColumn) and action.after is not None}
    placed = {column.name.lower(): column for column in columns if column.name.lower() in moved}
    columns = [column for column in columns if column.name.lower() not in moved]
    for action in actions:
        if isinstance(action, NewDefault):
            # What this finds none for, MariaDB may have added just now, and then old rows have it as well.
            column = columns[_index(columns, action.name)]
            new = _new_default(column, action.definition)
            defaults = (*without(defaults, column.identity), *([new] if new is not None else []))
    fill, number = dict[int, str](), entry.next_column
    for action in actions:
        if isinstance(action, ChangeColumn) and action.after is not None:
            columns.insert(_place(columns, action.after), placed[action.new.lower()])
        elif isinstance(action, AddColumn):
            column, value = _added(entry, action, number, flavor)
            columns.insert(_place(columns, action.after), column)
            number += 1
            defaults += (Default(column.identity, value),)
            if value is not None:
                fill[column.identity] = value
    if len({column.name.lower() for column in columns}) < len(columns):
        raise CopyAgain
    identities = {column.identity for column in columns}
    defaults = tuple(default for default in defaults if default.column in identities)
    for action in actions:
        if isinstance(action, AddKey):
            columns, doubt = _keyed(columns, action, entry)
            doubts += doubt
            entry = replace(entry, key_index="PRIMARY")
    after = replace(entry, schema=replace(entry.schema, columns=tuple(columns)), next_column=number, defaults=defaults)
    return Evolved(after, fill, "; ".join(doubts) or None)


def _changed(entry: TableState, actions: tuple[Action, ...], flavor: str) -> tuple[TableState, list[str]]:
    """The table with the definitions that its columns have now, under the names that they had, and what is doubtful."""
    doubts: list[str] = []
    columns, known = list(entry.schema.columns), entry.schema.columns
    for action in actions:
        if not isinstance(action, ChangeColumn):
            continue
        if entry.hidden or entry.row_end is not None:
            raise CopyAgain  # the server may keep other columns for itself than before
        was = columns[index := _index(list(known), action.old)]
        found = _defined(entry, was.name, action.definition, was.identity, flavor)
        now = found.column
        if any(was.identity in (one.column, *one.bases) for one in entry.generated):
            raise CopyAgain
        if was.key is not None and now.nullable and entry.key_index.upper() != "PRIMARY":
            raise CopyAgain  # a unique index is no key any more if it takes NULL
        if was.key is not None and not _stays(was, now):
            raise CopyAgain  # no row could be found again by what it was called before
        columns[index] = replace(now, key=was.key, nullable=now.nullable and was.key is None)
        if (why := _conversion(entry, was, columns[index])) is not None:
            doubts.append(f"{action.new} {why}")
        if found.counts:
            doubts.append(f"{action.new} may have got numbers where it had none")
        entry = replace(entry, defaults=without(entry.defaults, was.identity))
    return replace(entry, schema=replace(entry.schema, columns=tuple(columns))), doubts


def _conversion(entry: TableState, was: Column, now: Column) -> str | None:
    """What a new definition may do to values that are there; None if it leaves all of them as they are."""
    if was.nullable and not now.nullable:
        return "takes no NULL any more"
    if was.source_type == now.source_type:
        return None
    if not _stays(was, now):
        return "has another type, to which its values were converted"
    return "has another type, and columns may be worked out of it" if entry.computes else None


def _stays(was: Column, now: Column) -> bool:
    return keeps_values(source_type(was.source_type), source_type(now.source_type))


def _keyed(columns: list[Column], action: AddKey, entry: TableState) -> tuple[list[Column], list[str]]:
    """The columns with those of a primary key marked as such, and what is doubtful."""
    if entry.row_end is not None:
        raise CopyAgain  # the server adds one of its own
    places = {_index(columns, name): ordinal for ordinal, name in enumerate(action.columns)}
    doubts = [f"{columns[index].name} takes no NULL any more" for index in places if columns[index].nullable]
    return [
        replace(column, key=places.get(index), nullable=column.nullable and index not in places)
        for index, column in enumerate(columns)
    ], doubts


def _with_indexes(entry: TableState, actions: tuple[Action, ...]) -> TableState:
    """The table with the key that it had, under the name that its index has now."""
    for action in actions:
        if isinstance(action, DropKey | DropIndex):
            name = action.name.lower() if isinstance(action, DropIndex) else "primary"
            is_key = bool(entry.schema.key) and name in (entry.key_index.lower(), "primary")
            if entry.hidden or (entry.schema.key and not entry.key_index) or (is_key and entry.row_end is not None):
                raise CopyAgain
            if is_key:
                entry = _without_key(entry)
    name = entry.key_index.lower()
    new = {action.old.lower(): action.new for action in actions if isinstance(action, RenameIndex)}
    return replace(entry, key_index=new.get(name, entry.key_index))


def _without_key(entry: TableState) -> TableState:
    """The table with rows that are known by all of their values; it may have another key, of which we do not know."""
    columns = tuple(replace(column, key=None) for column in entry.schema.columns)
    return replace(entry, schema=replace(entry.schema, columns=columns, full_before=True), key_index="")


def _kept(entry: TableState, before: tuple[Column, ...], actions: tuple[Action, ...]) -> list[Column]:
    """The columns that stay: all names in a statement are those from before it, whatever else it renames (M1)."""
    columns, known = list(entry.schema.columns), list(before)
    gone = {_index(known, action.name) for action in actions if isinstance(action, DropColumn)}
    names = {
        _index(known, action.old): action.new for action in actions if isinstance(action, RenameColumn | ChangeColumn)
    }
    if gone & names.keys() or any(columns[index].key is not None for index in gone):
        raise CopyAgain
    return [
        replace(column, name=names.get(index, column.name)) for index, column in enumerate(columns) if index not in gone
    ]


def renamed(entry: TableState, name: TableName) -> TableState:
    """A table under another name."""
    return replace(entry, schema=replace(entry.schema, table=name))


def _index(columns: list[Column], name: str) -> int:
    for index, column in enumerate(columns):
        if column.name.lower() == name.lower():  # column names have no case
            return index
    raise CopyAgain


def _place(columns: list[Column], after: str | None) -> int:
    if after is None:
        return len(columns)
    return _index(columns, after) + 1 if after else 0


def _added(entry: TableState, action: AddColumn, identity: int, flavor: str) -> tuple[Column, str | None]:
    """A new column from its definition, if that leaves nothing to the character set or the modes of who sent it."""
    found = _defined(entry, action.name, action.definition, identity, flavor)
    if found.counts:
        raise CopyAgain  # rows that are there get numbers
    return found.column, _fill(found.column, found.default)


@dataclass(frozen=True, slots=True)
class _Definition:
    """A column as it is defined, with its default, and whether the server counts it on."""

    column: Column
    default: exp.Expression | None
    counts: bool


def _defined(entry: TableState, name: str, text: str, identity: int, flavor: str) -> _Definition:
    definition = _parsed(text)
    spelled = re.match("[A-Za-z]+", text)
    if definition.kind is None or spelled is None or spelled[0].upper() not in _SPELLED:
        raise CopyAgain
    nullable, default, charset, counts = True, None, entry.charset, False
    for constraint in definition.constraints:
        kind = constraint.kind
        if isinstance(kind, exp.NotNullColumnConstraint):
            nullable = bool(kind.args.get("allow_null"))
        elif isinstance(kind, exp.DefaultColumnConstraint):
            default = kind.this
        elif isinstance(kind, exp.CharacterSetColumnConstraint):
            charset = kind.this.name.lower()
        elif isinstance(kind, exp.AutoIncrementColumnConstraint):
            nullable, counts = False, True
        elif not isinstance(kind, exp.CommentColumnConstraint):
            raise CopyAgain  # generated columns, COLLATE and the like
    written = _type_text(definition.kind, charset, flavor)
    try:
        source = source_type(written)
    except UsageError:
        raise CopyAgain from None
    return _Definition(Column(name, written, logical_type(source), identity, None, nullable), default, counts)


def _parsed(text: str) -> exp.ColumnDef:
    """What stands behind a column's name."""
    if not text.isascii() or "\\" in text:
        raise CopyAgain
    try:
        parsed = parse_one(f"CREATE TABLE t (c {text})", dialect="mysql")
    except SqlglotError:
        raise CopyAgain from None
    found = list(parsed.find_all(exp.ColumnDef))
    if len(found) != 1:
        raise CopyAgain
    return found[0]


def _new_default(column: Column, text: str | None) -> Default | None:
    """The default of a column that got another one, if it is certain."""
    try:
        constraints = _parsed(f"int {text}").constraints if text is not None else []
    except CopyAgain:
        return None
    if len(constraints) != 1 or not isinstance(kind := constraints[0].kind, exp.DefaultColumnConstraint):
        return None
    if isinstance(kind.this, exp.Null):
        return Default(column.identity, None)
    # Under EMPTY_STRING_IS_NULL an empty text is none.
    return constant(column, str(kind.this.this)) if isinstance(kind.this, exp.Literal) and kind.this.this else None


def _type_text(kind: exp.Expression, charset: str | None, flavor: str) -> str:
    """A type as information_schema writes it."""
    assert isinstance(kind, exp.DataType)
    base = _PLAIN_TYPES.get(kind.this.name if isinstance(kind.this, exp.DataType.Type) else "")
    numbers = [parameter.name for parameter in kind.expressions]
    if base is None or not all(number.isdecimal() for number in numbers):
        raise CopyAgain
    if base == "json" and flavor == "mariadb":
        return "longtext character set utf8mb4"
    if numbers and (base in ("float", "double") or base.endswith(("text", "blob"))):
        raise CopyAgain  # the numbers choose another type
    if base in ("varchar", "varbinary") and not (numbers and int(numbers[0]) <= _LONGEST):
        raise CopyAgain
    name, *unsigned = base.split()
    text = " ".join([name + (f"({','.join(numbers)})" if numbers else ""), *unsigned])
    if base == "decimal":
        text = f"decimal({','.join((*numbers, '0')[:2] if numbers else ('10', '0'))})"
    if base == "binary" and not numbers:
        text = "binary(1)"
    if base not in _WITH_CHARSET:
        return text
    if charset is None or charset == "binary":  # which makes other types of them: BINARY, VARBINARY, BLOB (M4)
        raise CopyAgain
    return f"{text} character set {charset}"


def _fill(column: Column, default: exp.Expression | None) -> str | None:
    """What rows from before the column have in it."""
    if default is None or isinstance(default, exp.Null):
        if not column.nullable:
            raise CopyAgain  # the type's own idea of nothing: 0, '', 0000-00-00
        return None
    if column.type.kind not in _FILLED or not isinstance(default, exp.Literal):
        raise CopyAgain
    text = str(default.this)
    if column.type.kind is Kind.TEXT:
        # CHAR takes blanks off, and under EMPTY_STRING_IS_NULL an empty text is none.
        if not default.is_string or not text or text.endswith(" "):
            raise CopyAgain
        return text
    if not text.isdecimal():
        raise CopyAgain
    return str(int(text))
