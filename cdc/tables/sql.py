"""The statements over tables, built with sqlglot so that no identifier or value is ever pasted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from sqlglot import exp, parse_one

from cdc.model.schema import TableName
from cdc.tables.names import CATALOG
from cdc.typed import fitting

if TYPE_CHECKING:
    from cdc.tables.engine import Recalling

DIALECT = fitting.DIALECT
ROWS = fitting.ROWS
ROW_ID = "rowid"  # the column by which a row is found again as long as a transaction is open

COMPLETED = exp.Table(this=exp.to_identifier("_cdc_completed"))


def name(text: str) -> exp.Identifier:
    return exp.to_identifier(text, quoted=True)


def table(of: TableName, alias: str | None = None) -> exp.Table:
    return exp.Table(
        this=name(of.name),
        db=name(of.schema),
        catalog=name(CATALOG),
        alias=exp.TableAlias(this=name(alias)) if alias else None,
    )


def column(of: str, table_alias: str | None = None) -> exp.Column:
    return exp.Column(this=name(of), table=name(table_alias) if table_alias else None)


def rows(alias: str = "s") -> exp.Table:
    return exp.Table(this=name(ROWS), alias=exp.TableAlias(this=name(alias)))


Type = exp.DataType | str  # the latter in DuckDB's words


def data_type(kind: Type) -> exp.DataType:
    return exp.DataType.build(kind, dialect=DIALECT)


def create_schema(schema: str) -> exp.Expr:
    return exp.Create(kind="SCHEMA", this=exp.Table(db=name(schema), catalog=name(CATALOG)), exists=True)


def create_table(of: TableName, columns: Iterable[tuple[str, Type]]) -> exp.Expr:
    """No keys, no constraints: what the source allows is the source's business, and a key makes applying slower."""
    definitions = [exp.ColumnDef(this=name(text), kind=data_type(kind)) for text, kind in columns]
    return exp.Create(kind="TABLE", this=exp.Schema(this=table(of), expressions=definitions))


def drop_table(of: TableName) -> exp.Expr:
    return exp.Drop(kind="TABLE", tables=[table(of)], exists=True)


def drop_view(of: TableName) -> exp.Expr:
    return exp.Drop(kind="VIEW", tables=[table(of)], exists=True)


def delete_all(of: TableName) -> exp.Expr:
    return exp.Delete(this=table(of))


def delete_where(of: TableName, condition: exp.Condition) -> exp.Expr:
    return exp.Delete(this=table(of), where=exp.Where(this=condition))


def copy_table(old: TableName, new: TableName) -> exp.Expr:
    """A table under another name, for moves between schemas, which not every database has a statement for."""
    return exp.Create(kind="TABLE", this=table(new), expression=exp.select("*").from_(table(old)))


def rename_table(old: TableName, to: str) -> exp.Expr:
    return _alter(old, exp.AlterRename(this=exp.Table(this=name(to))))


def rename_column(of: TableName, old: str, new: str) -> exp.Expr:
    return _alter(of, exp.RenameColumn(this=column(old), to=column(new)))


def drop_column(of: TableName, text: str) -> exp.Expr:
    return _alter(of, exp.Drop(kind="COLUMN", tables=[column(text)]))


def add_column(of: TableName, text: str, kind: Type) -> exp.Expr:
    return _alter(of, exp.ColumnDef(this=name(text), kind=data_type(kind)))


def retype_column(of: TableName, text: str, kind: Type, using: exp.Expression) -> exp.Expr:
    return _alter(of, exp.AlterColumn(this=name(text), dtype=data_type(kind), using=using))


def fill_column(of: TableName, text: str, value: exp.Expression, which: exp.Expression | None) -> exp.Expr:
    """Give a column a value in all rows, or in those that fulfil a condition."""
    where = exp.Where(this=which.copy()) if which is not None else None
    return exp.Update(this=table(of), expressions=[exp.EQ(this=column(text), expression=value)], where=where)


def insert(of: TableName, columns: Sequence[str], values: Sequence[exp.Expression]) -> exp.Expr:
    """Rows of ROWS into a table."""
    return insert_named(of, columns, exp.select(*values).from_(rows()))


def delete(of: TableName, key: Sequence[tuple[str, exp.Expression]]) -> exp.Expr:
    """Delete the rows of a table whose key is in ROWS."""
    whens = exp.Whens(expressions=[exp.When(matched=True, then=exp.var("DELETE"))])
    return exp.Merge(this=table(of, "t"), using=rows(), on=_equal(key), whens=whens)


def create_completed(
    of: TableName, key: Sequence[tuple[str, exp.Expression]], values: Sequence[tuple[str, exp.Expression]]
) -> exp.Expr:
    """Rows of ROWS, joined with the table's of the same key, as a temporary table."""
    named = [exp.alias_(value, text, quoted=True) for text, value in values]
    found = exp.select(*named).from_(rows()).join(table(of, "t"), on=_equal(key))
    return create_temporary(COMPLETED, found)


def create_temporary(of: exp.Table, query: exp.Select) -> exp.Expr:
    """What a query gives as a temporary table."""
    temporary = exp.Properties(expressions=[exp.TemporaryProperty()])
    return exp.Create(kind="TABLE", this=of.copy(), properties=temporary, expression=query)


def drop_temporary(of: exp.Table) -> exp.Expr:
    return exp.Drop(kind="TABLE", tables=[of.copy()])


def insert_completed(of: TableName, columns: Sequence[str]) -> exp.Expr:
    """These rows into the table."""
    return insert_named(of, columns, exp.select(*map(column, columns)).from_(COMPLETED))


def insert_named(of: TableName, columns: Sequence[str], query: exp.Query) -> exp.Expr:
    """What a query gives into columns of a table."""
    target = exp.Schema(this=table(of), expressions=[name(text) for text in columns])
    return exp.Insert(this=target, expression=query)


def row_id(alias: str | None = None) -> exp.Column:
    return exp.Column(this=exp.to_identifier(ROW_ID), table=name(alias) if alias else None)


def _equal(key: Sequence[tuple[str, exp.Expression]]) -> exp.Condition:
    return exp.and_(*(exp.EQ(this=column(text, "t"), expression=value) for text, value in key))


def delete_copies(
    of: TableName, pairs: Sequence[tuple[exp.Expression, exp.Expression]], number: str, copies: str
) -> exp.Expr:
    """Delete as many copies of whole rows as ROWS says (A-46): rows have no name but their row id.

    Args:
        pairs: of values that are equal, one of ROWS and one of the table.
        number, copies: columns of ROWS: a number of its own for each row, and how many copies of it go.
    """
    same = exp.and_(*(exp.NullSafeEQ(this=theirs, expression=ours) for theirs, ours in pairs))
    place = exp.Window(this=exp.RowNumber(), partition_by=[column(number, "s")])
    found = (
        exp.select(
            exp.alias_(row_id("t"), "row_id"),
            exp.alias_(place, "place"),
            exp.alias_(column(copies, "s"), "copies"),
        )
        .from_(table(of, "t"))
        .join(rows(), on=same)
    )
    chosen = exp.select("row_id").from_(found.subquery("found")).where("place <= copies")
    return exp.Delete(this=table(of), where=exp.Where(this=exp.In(this=row_id(), query=chosen.subquery())))


def select_rows(values: Sequence[exp.Expression]) -> exp.Expr:
    """Values of each of ROWS."""
    return exp.select(*values).from_(rows())


def select_one(of: TableName, condition: exp.Condition) -> exp.Expr:
    """A row of a table that fulfils a condition, if there is one."""
    return exp.select(exp.convert(1)).from_(table(of)).where(condition).limit(1)


def _alter(of: TableName, action: exp.Expression) -> exp.Expr:
    return exp.Alter(kind="TABLE", this=table(of), actions=[action])


def literal(text: str) -> exp.Expression:
    return exp.Literal.string(text)


def cast(value: exp.Expression, kind: Type) -> exp.Expression:
    return exp.cast(value, kind, copy=False, dialect=DIALECT)


def constant(value: object, kind: Type) -> exp.Expression:
    """One value of a type, or NULL, for all rows."""
    return cast(literal(str(value)) if value is not None else exp.Null(), kind)


def try_cast(value: exp.Expression, kind: Type) -> exp.Expression:
    return exp.TryCast(this=value, to=data_type(kind))


def scalar(value: exp.Expression) -> exp.Expr:
    return exp.select(value)


def matching(of: TableName, key: Sequence[tuple[str, exp.Expression]], number: str) -> exp.Expr:
    """The numbers of those of ROWS whose key is in the table."""
    return exp.select(column(number, "s")).distinct().from_(rows()).join(table(of, "t"), on=_equal(key))


def worded(engine: Recalling, text: str, given: Mapping[str, exp.Expr] = MappingProxyType({})) -> exp.Expr:
    """A statement in DuckDB's words, in which `micros(TIME)` and `shown(MICROS)` are what an engine has for that.

    Args:
        given: what takes the place of columns of some names.
    """
    own = {"MICROS": engine.micros, "SHOWN": engine.shown}

    def put(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Anonymous) and node.name.upper() in own:
            return own[node.name.upper()](*node.expressions).transform(put)
        return given[node.name].copy() if isinstance(node, exp.Column) and node.name in given else node

    return parse_one(text, dialect=DIALECT).transform(put)
