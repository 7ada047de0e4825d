"""Statements in PostgreSQL's words: what `cdc.tables` writes as sqlglot's expressions, or in DuckDB's words."""

from __future__ import annotations

from functools import lru_cache

from sqlglot import exp, parse_one

from cdc.tables import sql
from cdc.tables.names import CATALOG
from cdc.targets.postgres.codecs import DIALECT, OutputCodec

_NUMBER = "((value_::text::point)[0]::int8 << 16) | (value_::text::point)[1]::int8"  # of a place in a table


class Rendered(str):
    """A statement in PostgreSQL's own words."""

    __slots__ = ()


def rendered(statement: exp.Expr) -> Rendered:
    """The text of a statement."""
    return Rendered(_adapted(statement.copy()).sql(dialect=DIALECT))


@lru_cache(maxsize=512)
def translated(statement: str) -> str:
    """A statement in DuckDB's words, with `?` for values, in PostgreSQL's."""
    parsed = parse_one(statement, dialect=sql.DIALECT)
    text = _adapted(parsed).sql(dialect=DIALECT)
    return text.replace("UBIGINT", "NUMERIC(20, 0)")


def _adapted(statement: exp.Expr) -> exp.Expr:
    """Without a catalog; rows are known by their ctid, as a number; rows that go are named by DELETE USING; a cast that
    is only tried does not fail, which sqlglot makes an ordinary one of."""
    if isinstance(statement, exp.Merge):
        using, on = statement.args["using"], exp.Where(this=statement.args["on"])
        statement = exp.Delete(this=statement.this, using=[using], where=on)
    for table in list(statement.find_all(exp.Table)):
        if table.catalog == CATALOG:
            table.set("catalog", None)
    for equal in list(statement.find_all(exp.EQ)):
        if _is_row_id(equal.this):
            equal.set("expression", _as_place(equal.expression))
            equal.set("this", _place(equal.this))
    for among in list(statement.find_all(exp.In)):
        if _is_row_id(among.this):
            select = among.args["query"].this
            select.set("expressions", [_as_place(select.expressions[0].unalias())])
            # As an array the rows are looked up one by one, however many the planner takes them to be.
            listed = exp.Anonymous(this="ANY", expressions=[exp.Anonymous(this="ARRAY", expressions=[select])])
            among.replace(exp.EQ(this=_place(among.this), expression=listed))
    for column in [column for column in statement.find_all(exp.Column) if _is_row_id(column)]:
        column.replace(filled(_NUMBER, _place(column)))
    for cast in list(statement.find_all(exp.TryCast)):
        cast.replace(OutputCodec(cast.to.sql(dialect=DIALECT)).careful(cast.this))
    for placeholder in list(statement.find_all(exp.Placeholder)):
        placeholder.replace(exp.Var(this="%s"))
    for join in list(statement.find_all(exp.Join)):
        _have_hashed(join)
    return statement


def _have_hashed(join: exp.Join) -> None:
    """Whole rows are the same if arrays of their texts are equal, which takes NULLs for equal as well.

    No fast join of PostgreSQL knows IS NOT DISTINCT FROM: it compared each row with each, 20,000 with 20,000 in 30 s.
    """
    condition = join.args.get("on")
    parts = list(condition.flatten()) if isinstance(condition, exp.And) else [condition]
    pairs = [part for part in parts if isinstance(part, exp.NullSafeEQ)]
    if len(pairs) == len(parts):
        ours = exp.Array(expressions=[pair.this.copy() for pair in pairs])
        theirs = exp.Array(expressions=[pair.expression.copy() for pair in pairs])
        join.set("on", exp.EQ(this=ours, expression=theirs))


def _is_row_id(node: exp.Expr) -> bool:
    return isinstance(node, exp.Column) and node.name == sql.ROW_ID and not node.this.quoted


def _place(node: exp.Expr) -> exp.Column:
    return exp.Column(this=exp.to_identifier("ctid"), table=node.args.get("table"))


def _as_place(number: exp.Expression) -> exp.Expression:
    return filled("format('(%s,%s)', value_ >> 16, value_ & 65535)::tid", number)


def filled(template: str, value: exp.Expression) -> exp.Expression:
    """An expression in PostgreSQL's words in which `value_` stands for another one."""
    parsed = parse_one(template, dialect=DIALECT)
    filled = parsed.transform(
        lambda node: value.copy() if isinstance(node, exp.Column) and node.name == "value_" else node
    )
    assert isinstance(filled, exp.Expression)
    return exp.paren(filled, copy=False)
