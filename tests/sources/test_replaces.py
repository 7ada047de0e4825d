"""Which updates of MariaDB's log are a REPLACE, or that it is not certain."""

from __future__ import annotations

import numpy as np
import pytest

from cdc.model.schema import TableName
from cdc.sources.mysql.events import HEADER, Event
from cdc.sources.mysql.replaces import (
    ORDINARY,
    REPLACE,
    UNCERTAIN,
    Replaces,
    Statement,
    Statements,
    StatementsNeeded,
)

ORDERS, LINES, OTHER = TableName("shop", "orders"), TableName("shop", "orders_line"), TableName("archive", "orders")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("REPLACE INTO orders (id) VALUES (1)", REPLACE),
        ("/* app */ -- why\n  replace LOW_PRIORITY orders select 1", REPLACE),
        ("REPLACE `shop`.`orders` SET id = 'it\\'s'", REPLACE),
        ("REPLACE INTO `ORDERS` VALUES (1)", REPLACE),
        ('REPLACE INTO "orders" VALUES (1)', REPLACE),
        ("SET STATEMENT max_statement_time = 60 FOR REPLACE INTO orders VALUES (1)", REPLACE),
        ("LOAD DATA INFILE 'x' REPLACE INTO TABLE `orders`", REPLACE),
        ("UPDATE orders SET note = REPLACE(note, 'a', 'b')", ORDINARY),
        ("update LOW_PRIORITY `shop`.`orders` o join a on 1 set o.x = 1", ORDINARY),
        ("UPDATE a, orders SET orders.x = 1", ORDINARY),
        ("INSERT INTO orders VALUES (1, '# on') ON  DUPLICATE\nKEY UPDATE x = 1", ORDINARY),
        ("INSERT INTO orders VALUES (1, 'ON DUPLICATE KEY UPDATE')", UNCERTAIN),
        ("INSERT INTO orders VALUES (1) /* ON DUPLICATE KEY UPDATE */", UNCERTAIN),
        ("INSERT INTO orders VALUES ('\\', ' ON DUPLICATE KEY UPDATE ')", UNCERTAIN),
        ("INSERT INTO orders VALUES (1)", UNCERTAIN),
        ("REPLACE INTO orders_line VALUES (1)", UNCERTAIN),
        ("REPLACE INTO order (id) SELECT orders FROM orders", UNCERTAIN),
        ("REPLACE INTO x VALUES ('orders')", UNCERTAIN),
        ("REPLACE INTO archive.orders VALUES (1)", UNCERTAIN),
        ("UPDATE customers SET x = (SELECT max(id) FROM orders)", UNCERTAIN),
        ("UPDATE customers c JOIN (SELECT 1 FROM orders) o SET x = 1", UNCERTAIN),
        ("UPDATE customers c JOIN d ON d.orders = c.id SET x = 1", UNCERTAIN),
        ("UPDATE customers AS orders SET x = 1", UNCERTAIN),
        ("/*!100100 REPLACE */ INTO orders VALUES (1)", UNCERTAIN),
        ("DELETE FROM orders", UNCERTAIN),
        ("CALL orders()", UNCERTAIN),
        ("'", UNCERTAIN),
        ("", UNCERTAIN),
        ("/**/" * 40 + "`orders`", UNCERTAIN),
    ],
)
def test_what_a_statement_says_of_its_updates(text: str, kind: int) -> None:
    """B-48, M6: by the target of the statement, never by where the table's name occurs in it."""
    assert Statement(text, {7: ORDERS}, {7: {b"one"}}).kind(7) == kind


def test_what_else_a_statement_writes_to() -> None:
    """M6: another table in it is one of a trigger's, whose statement the text may be; a name without a database may be
    one of either; and two kinds of updates of one table are those of a stored function."""
    one = {7: {b"one"}, 8: {b"one"}}
    assert Statement("REPLACE INTO orders_line VALUES (1)", {7: ORDERS, 8: LINES}, one).kind(7) == UNCERTAIN
    assert Statement("REPLACE INTO orders_line VALUES (1)", {7: ORDERS, 8: LINES}, one).kind(8) == UNCERTAIN
    assert Statement("UPDATE orders, orders_line SET x = 1", {7: ORDERS, 8: LINES}, one).kind(7) == ORDINARY
    assert Statement("UPDATE orders SET x = 1", {7: ORDERS, 8: OTHER}, one).kind(7) == UNCERTAIN
    assert Statement("UPDATE shop.orders, archive.orders SET x = 1", {7: ORDERS, 8: OTHER}, one).kind(7) == ORDINARY
    assert Statement("UPDATE orders SET x = 1", {7: ORDERS}, {7: {b"one", b"other"}}).kind(7) == UNCERTAIN


def annotated(*events: str) -> Statements:
    """Events in short: a statement's text, `map`, `row`, or `end` for the row event that ends a statement."""
    raw, kind = [], []
    for text in events:
        number = (7).to_bytes(6, "little") + b"\0\0"
        if text == "map":
            body, of = number + b"\4shop\0\6orders\0", Event.TABLE_MAP
        elif text in ("row", "end"):
            body, of = number + b"\1\1\1", Event.UPDATE_ROWS_V1
        else:
            body, of = text.encode(), Event.ANNOTATE_ROWS
        raw.append(bytes([0, 0, 0, 0, of]) + bytes(HEADER - 5) + body)
        kind.append(of)
    return Statements(raw, np.array(kind, dtype=np.uint8), np.array([text == "end" for text in events]))


def test_which_statement_rows_are_of() -> None:
    """B-48: also in parts of a transaction, and where only some sessions log their statements."""
    replace, update = "REPLACE INTO orders VALUES (1)", "UPDATE orders SET id = 1"
    replaces = Replaces(has_texts=True)
    run = annotated(replace, "map", "row", "end", update, "map", "end", replace, "map")
    at = np.array([2, 2, 3, 6])
    assert replaces.among(run, at, ORDERS).tolist() == [REPLACE, REPLACE, REPLACE, ORDINARY]
    replaces.passed(run)
    run = annotated("row", "row")
    assert replaces.among(run, np.array([0, 1]), ORDERS).tolist() == [REPLACE, REPLACE]
    replaces.passed(run)
    run = annotated("end", "end", update, "map", "row")
    assert replaces.among(run, np.array([0, 1, 4]), ORDERS).tolist() == [REPLACE, UNCERTAIN, ORDINARY]
    replaces.passed(annotated("end"))
    assert replaces.among(annotated("row"), np.array([0]), ORDERS).tolist() == [UNCERTAIN]
    with pytest.raises(StatementsNeeded):
        Replaces(has_texts=False).among(run, np.array([0]), ORDERS)
