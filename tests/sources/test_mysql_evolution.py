"""What a table's shape is after a statement, or that it is not certain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.mysql.ddl import effects
from cdc.sources.mysql.defaults import Default
from cdc.sources.mysql.effects import Altered
from cdc.sources.mysql.evolution import CopyAgain, evolved
from cdc.sources.mysql.state import TableState
from cdc.sources.mysql.types import logical_type, source_type

_NAMES = ("id", "a", "b", "n")
_COLUMNS = tuple(
    Column(name, text, logical_type(source_type(text)), identity, 0 if name == "id" else None)
    for identity, (name, text) in enumerate(
        zip(
            _NAMES,
            ["int", "varchar(20) character set utf8mb4", "varchar(20) character set utf8mb4", "int"],
            strict=True,
        ),
        start=1,
    )
)
TABLE = TableState(
    TableSchema(TableName("d", "t"), 1, _COLUMNS),
    "utf8mb4",
    0,
    copied=True,
    next_column=5,
    defaults=tuple(Default(identity, None) for identity in (2, 3, 4)),
    key_index="PRIMARY",
)


def altered(actions: str, table: TableState = TABLE) -> tuple[TableState, dict[int, str]]:
    (effect,) = effects(f"ALTER TABLE t {actions}", "d")
    assert isinstance(effect, Altered)
    found = evolved(table, effect.actions, "mariadb")
    return found.entry, found.fill


def shape(actions: str, table: TableState = TABLE) -> list[tuple[int, str]]:
    """Identity and name of each column, in order."""
    return [(column.identity, column.name) for column in altered(actions, table)[0].schema.columns]


# Each as MySQL 9.7, MariaDB 10.11 and 11.8 have it: integration/test_mysql_statements.py asks them.
SHAPES = [
    ("RENAME COLUMN a TO b, RENAME COLUMN b TO a", [(1, "id"), (2, "b"), (3, "a"), (4, "n")]),
    ("RENAME COLUMN b TO a, RENAME COLUMN a TO b", [(1, "id"), (2, "b"), (3, "a"), (4, "n")]),
    ("RENAME COLUMN a TO b, RENAME COLUMN b TO c", [(1, "id"), (2, "b"), (3, "c"), (4, "n")]),
    ("RENAME COLUMN a TO b, RENAME COLUMN b TO n, RENAME COLUMN n TO a", [(1, "id"), (2, "b"), (3, "n"), (4, "a")]),
    (
        "RENAME COLUMN a TO b, RENAME COLUMN b TO a, ADD x int AFTER a",
        [(1, "id"), (2, "b"), (3, "a"), (5, "x"), (4, "n")],
    ),
    ("ADD x int AFTER z, RENAME COLUMN a TO z", [(1, "id"), (2, "z"), (5, "x"), (3, "b"), (4, "n")]),
    ("RENAME COLUMN a TO b, DROP b", [(1, "id"), (2, "b"), (4, "n")]),
    ("DROP b, RENAME COLUMN a TO b", [(1, "id"), (2, "b"), (4, "n")]),
    ("ADD a int, DROP a", [(1, "id"), (3, "b"), (4, "n"), (5, "a")]),
    ("ADD a int FIRST, DROP A", [(5, "a"), (1, "id"), (3, "b"), (4, "n")]),
    ("RENAME COLUMN a TO a2, ADD a int AFTER a2", [(1, "id"), (2, "a2"), (5, "a"), (3, "b"), (4, "n")]),
    ("ADD y int FIRST, ADD x int AFTER y", [(5, "y"), (6, "x"), (1, "id"), (2, "a"), (3, "b"), (4, "n")]),
    ("ADD x int AFTER id, ADD y int AFTER id", [(1, "id"), (6, "y"), (5, "x"), (2, "a"), (3, "b"), (4, "n")]),
    ("RENAME COLUMN a TO A", [(1, "id"), (2, "A"), (3, "b"), (4, "n")]),
    ("ADD period bigint", [(1, "id"), (2, "a"), (3, "b"), (4, "n"), (5, "period")]),
    ("MODIFY n bigint FIRST, CHANGE a z varchar(30)", [(4, "n"), (1, "id"), (2, "z"), (3, "b")]),
    ("CHANGE a b varchar(20), CHANGE b a varchar(20)", [(1, "id"), (2, "b"), (3, "a"), (4, "n")]),
    ("MODIFY a varchar(20) AFTER n, ADD x int AFTER a", [(1, "id"), (3, "b"), (4, "n"), (2, "a"), (5, "x")]),
]


@pytest.mark.parametrize(("actions", "expected"), SHAPES, ids=[actions for actions, _ in SHAPES])
def test_shapes(actions: str, expected: list[tuple[int, str]]) -> None:
    """M1, M7: renames happen at once, by the names from before; columns come after that, one after the other."""
    assert shape(actions) == expected


COPIED_AGAIN = [
    "ADD c char(5) CHARACTER SET binary",
    "ADD c varchar(5) CHARSET binary",
    "ADD c text(5)",
    "ADD c blob(300)",
    "ADD c long",
    "ADD c real",
    "ADD c char(5) byte",
    "ADD c varchar(20000)",
    "ADD c timestamp",
    "ADD c int NOT NULL",
    "ADD c int AUTO_INCREMENT",
    "ADD c int DEFAULT (5)",
    "ADD c varchar(9) DEFAULT _latin1'x'",
    "ADD c int, ALTER c SET DEFAULT 5",
    "DROP a, ADD a int, ALTER a SET DEFAULT 5",
    "ADD x int AFTER y, ADD y int",
    "ADD a int",
    "DROP id",
    "DROP z",
    "MODIFY z int",
    "MODIFY n int AS (id + 1)",
    "MODIFY n int AUTO_INCREMENT UNIQUE",
    "MODIFY n timestamp",
    "MODIFY a varchar(20) COLLATE latin1_bin",
    "MODIFY id varchar(20)",
    "DROP PRIMARY KEY, DROP id, ADD PRIMARY KEY (z)",
    "RENAME COLUMN z TO a",
]


@pytest.mark.parametrize("actions", COPIED_AGAIN)
def test_what_is_not_certain(actions: str) -> None:
    """M4, M5: types that the server makes others of, values that are not certain, keys that go."""
    with pytest.raises(CopyAgain):
        altered(actions)


def test_a_binary_table() -> None:
    """M4: text columns of a table whose default character set is binary are none."""
    for text in ("char(5)", "varchar(5)", "text"):
        with pytest.raises(CopyAgain):
            altered(f"ADD c {text}", replace(TABLE, charset="binary"))
        assert altered(f"ADD c {text}")[0].schema.columns[-1].source_type == f"{text} character set utf8mb4"


def test_the_index_that_is_the_key() -> None:
    """M5: under whatever name it has by now; others may go."""
    unique = replace(TABLE, key_index="u")
    assert altered("DROP INDEX other", unique)[0] == unique
    moved, _ = altered("RENAME INDEX U TO v, RENAME INDEX w TO u", unique)
    assert moved.key_index == "v"
    assert altered("DROP INDEX u", moved)[0] == moved
    for table, index in ((unique, "U"), (moved, "v"), (TABLE, "`primary`")):
        keyless, _ = altered(f"DROP INDEX {index}", table)
        assert (keyless.schema.key, keyless.schema.full_before, keyless.key_index) == ((), True, "")
    for table, index in (
        (replace(TABLE, key_index=""), "any"),
        (replace(TABLE, hidden=1), "i"),
    ):
        with pytest.raises(CopyAgain):
            altered(f"DROP INDEX {index}", table)


# What a statement does to a column of some type: None if every value is what it was.
CONVERSIONS = [
    ("decimal(10,2)", "decimal(20,4)", None),
    ("decimal(10,2)", "decimal(10,4)", "converted"),
    ("decimal(10,2)", "decimal(20,1)", "converted"),
    ("int", "bigint", None),
    ("int", "int NOT NULL", "no NULL"),
    ("int unsigned", "bigint", None),
    ("int", "bigint unsigned", "converted"),
    ("bigint", "int", "converted"),
    ("int", "varchar(20)", "converted"),
    ("float", "double", "converted"),
    ("date", "datetime", "converted"),
    ("varchar(20) character set utf8mb4", "varchar(40)", None),
    ("varchar(20) character set utf8mb4", "varchar(10)", "converted"),
    ("varchar(20) character set latin1", "varchar(40)", "converted"),
    ("varchar(20) character set utf8mb4", "varchar(20) CHARACTER SET latin1", "converted"),
    ("text character set utf8mb4", "mediumtext", None),
    ("mediumtext character set utf8mb4", "text", "converted"),
    ("int", "int COMMENT 'x' DEFAULT 5", None),
    ("int", "bigint NOT NULL AUTO_INCREMENT", "may have got numbers"),
]


@pytest.mark.parametrize(("was", "becomes", "doubt"), CONVERSIONS)
def test_what_becomes_of_values(was: str, becomes: str, doubt: str | None) -> None:
    """H4: a type that holds every value that there was leaves them as they are; all others convert them."""
    column = Column("n", was, logical_type(source_type(was)), 4)
    table = replace(TABLE, schema=replace(TABLE.schema, columns=(*TABLE.schema.columns[:3], column)), computes=False)
    (effect,) = effects(f"ALTER TABLE t MODIFY n {becomes}", "d")
    assert isinstance(effect, Altered)
    found = evolved(table, effect.actions, "mysql")
    assert (found.doubt is None) is (doubt is None)
    assert doubt is None or doubt in str(found.doubt)
    assert found.entry.schema.columns[3].identity == 4
    computed = evolved(replace(table, computes=True), effect.actions, "mysql")
    assert (computed.doubt is None) is (found.entry.schema.columns[3].source_type == was and doubt is None)


def test_keys() -> None:
    """M5, H4: rows stay when a key goes or comes; a column of it that took NULL takes none any more."""
    (effect,) = effects("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (n, id)", "d")
    assert isinstance(effect, Altered)
    found = evolved(TABLE, effect.actions, "mysql")
    assert [found.entry.schema.columns[index].name for index in found.entry.schema.key] == ["n", "id"]
    assert "no NULL" in str(found.doubt)
    keyless, _ = altered("DROP PRIMARY KEY")
    assert (keyless.schema.key, keyless.schema.full_before) == ((), True)


def test_defaults() -> None:
    """A-48: what old rows get, and what new ones do, where it is certain."""
    after, fill = altered(
        "ADD c int NOT NULL DEFAULT 7, ADD d varchar(9) DEFAULT 'it''s', ALTER n SET DEFAULT 3, DROP a"
    )
    assert fill == {5: "7", 6: "it's"}
    assert after.defaults == (Default(3, None), Default(4, "3"), Default(5, "7"), Default(6, "it's"))
