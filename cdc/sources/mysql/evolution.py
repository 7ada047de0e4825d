"""How a table's shape follows a statement, or that it does not and the table has to be copied again."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from cdc.errors import UsageError
from cdc.model.schema import Column, Kind, TableName
from cdc.sources.mysql.ddl import Action, AddColumn, DropColumn, NewCharset, NewDefault, RenameColumn, Rewritten
from cdc.sources.mysql.defaults import Default, constant, without
from cdc.sources.mysql.state import TableState
from cdc.sources.mysql.types import logical_type, source_type

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
_FILLED = {Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64, Kind.TEXT}


class CopyAgain(Exception):
    """The statement does more than can be followed: the table has to be copied again."""


def evolved(entry: TableState, actions: tuple[Action, ...], flavor: str) -> tuple[TableState, dict[int, str]]:
    """A table after some actions, and per identity of an added column the text that rows from before have in it.

    Raises:
        CopyAgain: an action changes values, or is not understood to the last word.
    """
    columns, fill, number = list(entry.schema.columns), dict[int, str](), entry.next_column
    defaults = entry.defaults
    if any(isinstance(action, NewCharset) for action in actions):
        entry = replace(entry, charset=None)
    for action in actions:
        if isinstance(action, AddColumn):
            column, value = _added(entry, action, number, flavor)
            if any(other.name.lower() == action.name.lower() for other in columns):
                raise CopyAgain
            columns.insert(_place(columns, action.after), column)
            number += 1
            defaults += (Default(column.identity, value),)
            if value is not None:
                fill[column.identity] = value
        elif isinstance(action, DropColumn):
            index = _index(columns, action.name)
            if columns[index].key is not None:
                raise CopyAgain
            defaults = without(defaults, columns.pop(index).identity)
        elif isinstance(action, RenameColumn):
            index = _index(columns, action.old)
            columns[index] = replace(columns[index], name=action.new)
        elif isinstance(action, NewDefault):
            column = columns[_index(columns, action.name)]
            new = _new_default(column, action.definition)
            defaults = (*without(defaults, column.identity), *([new] if new is not None else []))
        elif isinstance(action, Rewritten):
            raise CopyAgain
    schema = replace(entry.schema, columns=tuple(columns))
    return replace(entry, schema=schema, next_column=number, defaults=defaults), fill


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
    definition = _parsed(action.definition)
    if definition.kind is None:
        raise CopyAgain
    nullable, default, charset = True, None, entry.charset
    for constraint in definition.constraints:
        kind = constraint.kind
        if isinstance(kind, exp.NotNullColumnConstraint):
            nullable = bool(kind.args.get("allow_null"))
        elif isinstance(kind, exp.DefaultColumnConstraint):
            default = kind.this
        elif isinstance(kind, exp.CharacterSetColumnConstraint):
            charset = kind.this.name.lower()
        elif not isinstance(kind, exp.CommentColumnConstraint):
            raise CopyAgain  # AUTO_INCREMENT, generated columns, COLLATE and the like
    text = _type_text(definition.kind, charset, flavor)
    try:
        source = source_type(text)
    except UsageError:
        raise CopyAgain from None
    column = Column(action.name, text, logical_type(source), identity, None, nullable)
    return column, _fill(column, default)


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
    if base in ("float", "double") and numbers:
        raise CopyAgain
    name, *unsigned = base.split()
    text = " ".join([name + (f"({','.join(numbers)})" if numbers else ""), *unsigned])
    if base == "decimal":
        text = f"decimal({','.join((*numbers, '0')[:2] if numbers else ('10', '0'))})"
    if base in ("varchar", "varbinary") and not numbers:
        raise CopyAgain
    if base == "binary" and not numbers:
        text = "binary(1)"
    if base not in _WITH_CHARSET:
        return text
    if charset is None:
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
