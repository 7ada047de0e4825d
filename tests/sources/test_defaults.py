"""Constant defaults: known exactly, or not at all."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cdc.model.arrays import texts
from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.mysql.ddl import Altered, effects
from cdc.sources.mysql.defaults import Default, filled, of_column
from cdc.sources.mysql.evolution import evolved
from cdc.sources.mysql.state import TableState
from cdc.sources.mysql.types import logical_type, source_type

TABLE = TableName("shop", "orders")


def column(kind: str, *, nullable: bool = True) -> Column:
    return Column("x", kind, logical_type(source_type(kind)), 1, None, nullable)


@pytest.mark.parametrize(
    ("kind", "mysql", "mariadb", "text"),
    [
        ("int", "7", "7", "7"),
        ("smallint(5) unsigned zerofill", "00042", "00042", "42"),
        ("bigint unsigned", "18446744073709551615", "18446744073709551615", "18446744073709551615"),
        ("year", "2024", "2024", "2024"),
        ("decimal(20,4)", "-1.5000", "-1.5", "-1.5000"),
        ("float", "0", "0", "0"),
        ("double", "-0.25", "-0.25", "-0.25"),
        ("bit(3)", "b'101'", "b'101'", "5"),
        ("varchar(9) character set latin1", "é ü", "'é ü'", "é ü"),
        ("varchar(9) character set utf8mb4", "", "''", ""),
        ("enum('a','b')", "b", "'b'", "b"),
        ("set('a','b','c')", "a,c", "'a,c'", "a,c"),
        ("date", "2024-02-29", "'2024-02-29'", "2024-02-29"),
        ("datetime(3)", "1999-12-31 23:59:59.500", "'1999-12-31 23:59:59.5'", "1999-12-31 23:59:59.5"),
    ],
)
def test_what_is_known(kind: str, mysql: str, mariadb: str, text: str) -> None:
    """B-24: as either server's information_schema writes it, and as its rows have it."""
    of = column(kind)
    for said, is_quoted in ((mysql, False), (mariadb, True)):
        default = of_column(of, said, "", is_quoted=is_quoted)
        assert default is not None
        found = filled(pa.nulls(2, pa.string_view()), np.array([True, False]), of, default)
        assert texts(found) == [text, None]


@pytest.mark.parametrize(
    ("kind", "said", "is_quoted"),
    [
        ("int", "1 + 1", True),
        ("int", "1.6", True),
        ("int", "99999999999", True),
        ("year", "24", True),
        ("decimal(4,1)", "1.55", True),
        ("decimal(4,1)", "nan", True),
        ("varchar(9) character set utf8mb4", "'it''s'", True),
        ("varchar(9) character set utf8mb4", "uuid()", True),
        ("char(9) character set utf8mb4", "'a '", True),
        ("enum('a','b')", "'A'", True),
        ("set('a','b','c')", "'c,a'", True),
        ("date", "'20240229'", True),
        ("date", "0000-00-00", False),
        ("datetime", "CURRENT_TIMESTAMP", False),
        ("datetime", "'2024-01-01 00:00:00.5'", True),
        ("datetime", "current_timestamp()", True),
        ("timestamp", "2024-01-01 00:00:00", False),
        ("float", "1.5", False),
        ("float(5,2)", "1.23", False),
        ("double", "1e30", True),
        ("bit(3)", "'a'", True),
        ("time", "01:02:03", False),
        ("binary(3)", "a", False),
    ],
)
def test_what_is_not_certain(kind: str, said: str, is_quoted: bool) -> None:
    """B-24: whatever the server may read in another way than we do is not known."""
    assert of_column(column(kind), said, "", is_quoted=is_quoted) is None


def test_no_default_at_all() -> None:
    """B-24: NULL, or what a mode that is not strict puts in its place; nothing is known of what is worked out."""
    assert of_column(column("float"), None, "", is_quoted=False) == Default(1, None)
    assert of_column(column("float"), "1.1", "", is_quoted=True) == Default(1, "1.1")
    assert of_column(column("json"), "NULL", "", is_quoted=True) == Default(1, None)
    assert of_column(column("int", nullable=False), None, "", is_quoted=False) == Default(1, "0")
    assert of_column(column("decimal(5,2)", nullable=False), None, "", is_quoted=True) == Default(1, "0.00")
    assert of_column(column("text character set utf8mb4", nullable=False), None, "", is_quoted=False) == Default(1, "")
    assert of_column(column("date", nullable=False), None, "", is_quoted=False) is None
    for extra in ("DEFAULT_GENERATED", "VIRTUAL GENERATED", "auto_increment"):
        assert of_column(column("int"), "7", extra, is_quoted=False) is None


@pytest.mark.parametrize(
    ("kind", "said", "text"),
    [
        ("int", "SET DEFAULT 8", "8"),
        ("int", "SET DEFAULT '8'", "8"),
        ("int", "SET DEFAULT NULL", None),
        ("decimal(6,2)", "SET DEFAULT 1.5", "1.50"),
        ("varchar(9) character set utf8mb4", "SET DEFAULT 'a b'", "a b"),
        ("enum('a','b')", "SET DEFAULT 'b'", "b"),
        ("date", "SET DEFAULT '2024-02-29'", "2024-02-29"),
        ("int", "SET INVISIBLE", "1"),
    ],
)
def test_a_default_that_is_altered(kind: str, said: str, text: str | None) -> None:
    """B-24, B-41: as of the statement in the log."""
    assert altered(kind, said) == (Default(1, text),)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("int", "DROP DEFAULT"),
        ("int", "SET DEFAULT (1 + 1)"),
        ("int", "SET DEFAULT 1.6"),
        ("year", "SET DEFAULT 24"),
        ("enum('a','b')", "SET DEFAULT 'B'"),
        ("varchar(9) character set utf8mb4", "SET DEFAULT ''"),
        ("varchar(9) character set utf8mb4", r"SET DEFAULT 'a\nb'"),
        ("varchar(9) character set utf8mb4", "SET DEFAULT 'é'"),
        ("varchar(9) character set utf8mb4", "SET DEFAULT _latin1'a'"),
        ("decimal(6,2)", "SET DEFAULT 1.555"),
        ("datetime", "SET DEFAULT CURRENT_TIMESTAMP"),
    ],
)
def test_a_default_that_is_altered_to_something_uncertain(kind: str, said: str) -> None:
    """B-24: what was known before is not any more."""
    assert altered(kind, said) == ()


def altered(kind: str, said: str) -> tuple[Default, ...]:
    entry = TableState(TableSchema(TABLE, 1, (column(kind),)), "utf8mb4", 0, True, 2, None, (Default(1, "1"),))
    (effect,) = effects(f"ALTER TABLE orders ALTER COLUMN x {said}", "shop")
    assert isinstance(effect, Altered)
    after = evolved(entry, effect.actions, "mysql").entry
    assert after.schema == entry.schema
    return after.defaults
