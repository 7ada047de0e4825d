"""Queries as PostgreSQL's clients write them, as DuckDB understands them.

DuckDB's SQL is PostgreSQL's in most of what people write, so a query goes as it is. Those of the catalogue are
rewritten.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from cdc.serve import catalog
from cdc.tables.names import CATALOG

_OF_CATALOGUE = re.compile(
    r"""\bpg_\w+|\binformation_schema\b|\breg(class|type|proc|procedure|namespace|role|oper)\b|\bcurrent_(database|catalog|schemas|user|role|setting)\b
        |\b(session_user|version|set_config|has_\w+_privilege|format_type|quote_ident|quote_literal|(obj|col|shobj)_description)\b
        |::\s*(name|oid|"char")\b|\boperator\s*\(|\bcollate\b|\barray_(upper|lower)\b""",
    re.IGNORECASE | re.VERBOSE,
)


# After AS, PostgreSQL takes any word as a name.
_KEYWORD = re.compile(r"\bAS\s+(select|insert|update|delete|table|from|where|order|group|user)\b", re.IGNORECASE)


def as_duckdb(sql: str) -> str:
    """The query as DuckDB understands it; as it is, if that is no query of the catalogue or nobody can read it."""
    return _rewritten(sql) if len(sql) <= _LONGEST and _OF_CATALOGUE.search(sql) else sql


_LONGEST = 1 << 16  # letters: programs ask the catalogue in far fewer


@lru_cache(maxsize=512)  # clients ask the same again and again
def _rewritten(sql: str) -> str:
    tree = _parsed(sql) or _parsed(_KEYWORD.sub(r'AS "\1"', sql))
    if tree is None:
        return sql
    try:
        return _translated(tree)
    except RecursionError:  # DuckDB says of what is nested so deeply that it is
        return sql


def _translated(tree: exp.Expr) -> str:
    for select in tree.find_all(exp.Select):
        select.set("expressions", [_labelled(value) for value in select.expressions])
    for node in reversed(list(tree.walk())):  # what is inside first, since what is around it may move it
        if (instead := _node(node)) is not node:
            if node is tree:
                tree = instead
            else:
                node.replace(instead)
    return tree.sql(dialect="duckdb")


def _parsed(sql: str) -> exp.Expr | None:
    try:
        return sqlglot.parse_one(sql, dialect="postgres")
    except (SqlglotError, RecursionError):
        return None


def _labelled(value: exp.Expr) -> exp.Expr:
    """With the name that PostgreSQL gives a value without one, since another expression stands there afterwards."""
    inner = value
    while isinstance(inner, exp.Cast | exp.Collate):
        inner = inner.this
    if isinstance(inner, exp.Dot):
        inner = inner.expression
    if value is not inner and isinstance(inner, exp.Column):
        return exp.alias_(value, inner.name, quoted=True)
    if isinstance(inner, exp.Func):
        name = inner.name if isinstance(inner, exp.Anonymous) else _NAMED.get(type(inner), "")
        return exp.alias_(value, name.lower(), quoted=True) if name else value
    return value


_NAMED: dict[type[exp.Expr], str] = {
    exp.CurrentDatabase: "current_database",
    exp.CurrentCatalog: "current_catalog",
    exp.CurrentSchema: "current_schema",
    exp.CurrentSchemas: "current_schemas",
    exp.CurrentUser: "current_user",
    exp.SessionUser: "session_user",
    exp.CurrentVersion: "version",
}


def _node(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.Table):
        return _table(node)
    if isinstance(node, exp.Column) and node.db.lower() == "pg_catalog":
        node.set("db", None)
        return node
    if isinstance(node, exp.Column) and not node.table and node.name == "user" and not node.this.quoted:
        return exp.Literal.string("cdc")
    if isinstance(node, exp.DataType) and isinstance(kind := node.args.get("kind"), exp.Dot):
        return exp.DataType.build(kind.expression.name, dialect="postgres", udt=True)
    if isinstance(node, exp.Cast):
        return _cast(node)
    if isinstance(node, exp.Collate):
        collated: exp.Expr = node.this
        return collated
    if isinstance(node, exp.Operator):
        return _operator(node)
    if isinstance(node, exp.Dot):
        return _qualified(node)
    if isinstance(node, exp.Func):
        return _called(node)
    return node


def _table(node: exp.Table) -> exp.Expr:
    name, schema = node.name.lower(), node.db.lower()
    if isinstance(node.this, exp.Func):
        return _table_function(node, schema)
    held = catalog.STANDARD.get(name) if schema == "information_schema" else None
    if held is None and name in catalog.TABLES and schema in ("", "pg_catalog"):
        held = name
    if held is None:
        # PostgreSQL lets a name have its database in front, which is the only one that there is.
        if node.catalog:
            node.set("catalog", exp.to_identifier(CATALOG))
        return node
    memory, inside = (exp.to_identifier(part) for part in catalog.PLACE.split("."))
    made = exp.Table(this=exp.to_identifier(held), db=inside, catalog=memory)
    alias = node.args.get("alias") or exp.TableAlias(this=exp.to_identifier(node.name))
    made.set("alias", alias.copy())
    for key in ("joins", "laterals", "pivots"):
        if node.args.get(key):
            made.set(key, node.args[key])
    return made


def _table_function(node: exp.Table, schema: str) -> exp.Expr:
    called = node.this
    alias = node.args.get("alias")
    if isinstance(alias, exp.TableAlias) and not alias.columns and not isinstance(called, exp.Anonymous):
        alias.set("columns", [alias.this.copy()])  # PostgreSQL calls the one column of a function like its table
    if isinstance(called, exp.StringToArray):
        called = exp.Anonymous(this="items_of", expressions=[called.this, called.expression])
        node.set("this", called)
    if schema in ("", "pg_catalog"):
        memory, inside = (exp.to_identifier(part) for part in catalog.PLACE.split("."))
        is_ours = isinstance(called, exp.Anonymous) and called.name.lower() in catalog.TABLE_FUNCTIONS
        node.set("db", inside if is_ours else None)
        node.set("catalog", memory if is_ours else None)
    return node


def _cast(node: exp.Cast) -> exp.Expr:
    kind = _kind(node.to)
    value = node.this
    if kind == "regclass":
        # A number is shown as a name, and a name stands for a number.
        is_name = isinstance(value, exp.Literal) and value.is_string
        return _macro("number_of_table" if is_name else "name_of_table", [value])
    if kind in ("regtype", "regproc", "regnamespace", "regrole", "regprocedure", "regoper", "regoperator"):
        if kind == "regtype" and isinstance(value, exp.Literal) and value.is_string:
            return _macro("number_of_type_named", [value])
        if kind == "regtype":
            return _macro("format_type", [value, exp.Literal.number(-1)])
        if isinstance(value, exp.Literal):
            value = exp.Literal.string(value.name.removeprefix("pg_catalog."))
        return exp.cast(value, "VARCHAR", dialect="duckdb")
    if kind in ("name", "char", "text", "varchar", "information_schema.sql_identifier", "sql_identifier", "aclitem"):
        return exp.cast(value, "VARCHAR", dialect="duckdb")
    if kind in ("oid", "xid", "int2vector", "oidvector"):
        return exp.cast(value, "BIGINT", dialect="duckdb")
    if isinstance(value, exp.Literal) and value.is_string and node.to.is_type("array"):
        items = re.findall(r'"((?:[^"\\]|\\.)*)"|([^,{}]+)', value.name)
        return exp.Array(expressions=[exp.Literal.string(quoted or bare) for quoted, bare in items])
    return node


def _kind(to: exp.Expr) -> str:
    """The name of a type without its schema."""
    named = to.args.get("kind") if isinstance(to, exp.DataType) else None
    if named is None:
        found = to.this
        return str(found.value if isinstance(found, Enum) else found).lower()
    name: str = (
        named.expression.name
        if isinstance(named, exp.Dot)
        else named.name
        if isinstance(named, exp.Expr)
        else str(named)
    )
    return name.lower()


_OPERATORS: dict[str, type[exp.Binary]] = {
    "=": exp.EQ,
    "<>": exp.NEQ,
    "~~": exp.Like,
    "~~*": exp.ILike,
    "<": exp.LT,
    ">": exp.GT,
    "<=": exp.LTE,
    ">=": exp.GTE,
    "+": exp.Add,
    "||": exp.DPipe,
}


def _operator(node: exp.Operator) -> exp.Expr:
    """`OPERATOR(pg_catalog.~)`, as psql writes it so that nobody's own operator is used."""
    word = str(node.args["operator"]).rpartition(".")[2].strip()
    left, right = node.this, node.expression
    is_not = word.startswith("!")
    word = word.removeprefix("!")
    if word in ("~", "~*"):
        flags = [exp.Literal.string("i")] if word == "~*" else []
        made: exp.Expr = exp.func("regexp_matches", left, right, *flags, dialect="duckdb")
    elif word in _OPERATORS:
        made = _OPERATORS[word](this=left, expression=right)
    else:
        return node
    return exp.Not(this=made) if is_not else made


def _qualified(node: exp.Dot) -> exp.Expr:
    """`pg_catalog.f(...)`."""
    called = node.expression
    if isinstance(node.this, exp.Identifier) and node.this.name.lower() in ("pg_catalog", "information_schema"):
        if isinstance(called, exp.Anonymous):
            return _by_name(called)
        if isinstance(called, exp.Func):
            return _called(called)
    return node


def _called(node: exp.Func) -> exp.Expr:
    if isinstance(node, exp.CurrentUser | exp.SessionUser):
        return exp.Literal.string("cdc")
    if isinstance(node, exp.CurrentDatabase | exp.CurrentCatalog):
        return _macro("current_database", [])
    if isinstance(node, exp.CurrentVersion):
        return _macro("version", [])
    if isinstance(node, exp.CurrentSchemas):
        return _macro("current_schemas", [node.this or exp.true()])
    if isinstance(node, exp.Anonymous) and not isinstance(node.parent, exp.Dot | exp.Table):
        return _by_name(node)
    return node


def _by_name(node: exp.Anonymous) -> exp.Expr:
    name = node.name.lower()
    return _macro(name, node.expressions) if name in catalog.FUNCTIONS else node


def _macro(name: str, arguments: list[exp.Expr]) -> exp.Expr:
    parts = [exp.to_identifier(part) for part in catalog.PLACE.split(".")]
    return exp.Dot.build([*parts, exp.Anonymous(this=name, expressions=arguments)])
