"""Checks of values and names: each arrives exactly, or the target says no."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from cdc.errors import UsageError
from cdc.model.change import Op
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes
from cdc.target import Choosy
from cdc.testing.conformance.driver import Driver, refused
from cdc.testing.conformance.values import EDGES, natively
from cdc.testing.conformance.work import Table, Work, column, keyed

_TEXT, _INT64 = LogicalType(Kind.TEXT), LogicalType(Kind.INT64)
_LONGEST_KEY = 1000  # characters
# No source takes these for keys, or not every text of a value is the same one.
_NO_KEYS = (Kind.FLOAT32, Kind.FLOAT64, Kind.VECTOR, Kind.JSON, Kind.LIST)
_HOSTILE = (
    "with space",
    'a"quote',
    "it's",
    "back`tick",
    "back\\slash",
    "semi;colon--",
    "per%cent %s",
    "what?",
    "{curly}",
    ":colon",
    "$dollar",
    "select",
    "group",
    "rowid2",
    "new\nline",
    "na\u00efve \U0001f600",
    "dot.ted",
    "x" * 60,
)


def holds_values(driver: Driver, random: Random) -> None:
    """Values of every type at their edges, copied and as changes, as texts and as the numbers and moments that some
    sources send: each comes back as exactly the text that it was, if need be because its column becomes text."""
    schema = TableSchema(
        TableName("conformance", "values"),
        1,
        (
            column("id", _INT64, 1, 0),
            *(
                Column(f"v{number}", source_type, kind, number + 10)
                for number, (kind, (source_type, _, _)) in enumerate(EDGES.items())
            ),
        ),
    )
    ordinary = [ordinary for _, ordinary, _ in EDGES.values()]
    edges = [[*ordinary, *edges] for _, ordinary, edges in EDGES.values()]
    work = Work(random, schema, is_filled=False)
    (table,) = work.tables
    table.rows = _table_of(ordinary, 0)
    driver.open()
    driver.apply(*work.copies())
    driver.verify(work.state())
    come = _table_of(edges, 100)
    for some in (come[::2], come[1::2]):
        table.rows += some
        made = work.changed(*((table, (Op.INSERT, None, tuple(row))) for row in some))
        native = [Changes(natively(step.batch)) for step in made.steps if isinstance(step, Changes)]
        driver.apply(replace(made, steps=[*native]))
    driver.verify(work.state())
    for row in table.rows:
        row[1:] = [random.choice(values) if random.random() < 0.9 else None for values in edges]
    for some in (table.rows[::2], table.rows[1::2]):
        driver.apply(work.changed(*((table, (Op.UPDATE, None, tuple(row))) for row in some)))
    driver.verify(work.state())
    work.order += 10
    driver.apply(*work.copies())
    driver.verify(work.state())


def _table_of(values: Sequence[Sequence[str]], begin: int) -> list[list[object]]:
    """Rows in which each column has all of its values, beginning again with the first, and then NULL."""
    longest = max(map(len, values))
    listed: list[list[str | None]] = [[each[row % len(each)] for each in values] for row in range(longest)]
    nothing: list[str | None] = [None] * len(values)
    return [[str(begin + number), *row] for number, row in enumerate((*listed, nothing))]


def finds_rows_by_any_key(driver: Driver, random: Random) -> None:
    """Rows are found by keys of every type, also once a key has come for which the type had no place."""
    kinds = [
        (number, kind, source_type)
        for number, (kind, (source_type, _, _)) in enumerate(EDGES.items())
        if kind.kind not in _NO_KEYS
    ]
    schemas = [
        TableSchema(
            TableName("conformance", f"by_{number}"),
            number,
            (Column("k", source_type, kind, 1, 0, nullable=False), column("v", _TEXT, 2)),
        )
        for number, kind, source_type in kinds
    ]
    work = Work(random, *schemas, is_filled=False)
    for table, (_, kind, _) in zip(work.tables, kinds, strict=True):
        table.rows = [[text, "copied"] for text in EDGES[kind][1]]
    driver.open()
    driver.apply(*work.copies())
    come, changed, gone = [], [], []
    for table, (_, kind, _) in zip(work.tables, kinds, strict=True):
        new = [text for text in EDGES[kind][2] if len(text) < _LONGEST_KEY]
        come += [(table, (Op.INSERT, None, (text, "new"))) for text in new]
        gone += [(table, (Op.DELETE, (table.rows[0][0], None), None))]
        table.rows += [[text, "new"] for text in new]
        changed += [(table, (Op.UPDATE, None, (row[0], "changed"))) for row in table.rows]
        table.rows = [[row[0], "changed"] for row in table.rows[1:]]
    driver.apply(work.changed(*come), work.changed(*changed), work.changed(*gone))
    driver.verify(work.state())


def takes_any_name(driver: Driver, random: Random) -> None:
    """Schemas, tables and columns have names with quotes, spaces, words of SQL, and letters of any language."""
    columns = tuple(column(name, _TEXT, number + 10) for number, name in enumerate(_HOSTILE))
    tables = [
        TableSchema(TableName(f"conformance {name}"[:60], name), number, (column(name + "_", _INT64, 1, 0), *columns))
        for number, name in enumerate(random.sample(_HOSTILE, 5), 1)
    ]
    work = Work(random, *tables)
    driver.open()
    driver.apply(*work.copies())
    for _ in range(4):
        driver.apply(work.transaction(shapes=True))
    driver.verify(work.state())


def sees_case(driver: Driver, random: Random) -> None:
    """Names that differ in case alone are different ones, or the second of them is refused by its name."""
    upper = replace(keyed(2), table=TableName("conformance", "ORDERS"))
    twins = replace(keyed(3, "twins"), columns=(*keyed().columns, column("NOTE", _TEXT, 30)))
    work = Work(random, keyed())
    driver.open()
    if isinstance(driver.target, Choosy) and not driver.place.abilities.sees_case:
        with refused(UsageError, naming="ORDERS"):
            driver.target.refuse([keyed(), upper])
        with refused(UsageError, naming="twins"):
            driver.target.refuse([twins])
    driver.apply(*work.copies())
    for schema in (upper, twins):
        late = Work(random, schema)
        late.order = work.order = work.order + 10
        if driver.place.abilities.sees_case:
            driver.apply(*late.copies())
            driver.apply(late.transaction())
            work.order = late.order
            driver.verify({**late.state(), **work.state()})
        else:
            with refused(UsageError, naming=schema.table.name):
                driver.apply(*late.copies())
            driver.again()
            driver.verify(work.state())


def counts_equal_rows(driver: Driver, random: Random) -> None:
    """Of equal rows of a table without a key exactly as many go as the log says; NULL is a value like any other."""
    schema = TableSchema(
        TableName("conformance", "equal"),
        1,
        (column("a", _TEXT, 1), column("b", LogicalType(Kind.BYTES), 2)),
        full_before=True,
    )
    work = Work(random, schema, is_filled=False)
    (table,) = work.tables
    rows = [("x", None)] * 3 + [(None, "\\x")] * 2 + [(None, None)] * 2 + [("", "\\x00")]
    table.rows = [list(row) for row in rows]
    driver.open()
    driver.apply(*work.copies())
    driver.verify(work.state())
    for old, new in ((("x", None), None), (None, (None, None)), ((None, "\\x"), ("x", None)), ((None, None), None)):
        op = Op.INSERT if old is None else Op.DELETE if new is None else Op.UPDATE
        if old is not None:
            table.rows.remove(list(old))
        if new is not None:
            table.rows.append(list(new))
        driver.apply(work.changed((table, (op, old, new))))
        driver.verify(work.state())
    driver.apply(work.changed())
    assert Table(schema, table.rows).held() == Counter(work.state()[1][1])
