"""Tables of MySQL and MariaDB that schemas begin with, values for columns, and what is there now."""

from __future__ import annotations

import random

from integration.schema_changes.servers import Session
from integration.schema_changes.shapes import Column, Table

_RANGES = "PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20), PARTITION p2 VALUES LESS THAN (60)"
SETUP = (
    "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20), b VARCHAR(20), n INT, e ENUM('x', 'y', 'z'))",
    "INSERT INTO t VALUES (1, 'a1', 'b1', 1, 'x'), (2, 'a2', NULL, 2, 'y'), (3, 'é', 'b3', NULL, 'z'), (4, '', 'b', 4, NULL)",
    "CREATE TABLE u (id BIGINT NOT NULL, a TEXT, b CHAR(5), d DECIMAL(8, 2), UNIQUE KEY one (id)) CHARACTER SET latin1",
    "INSERT INTO u VALUES (1, 'u1', 'b', 1.5), (2, 'u2', NULL, NULL), (3, 'ü', 'c', -3)",
    "CREATE TABLE k (a INT, b VARCHAR(30), s SET('r', 'w'))",
    "INSERT INTO k VALUES (1, 'x', 'r,w'), (1, 'x', 'r,w'), (2, NULL, '')",
    f"CREATE TABLE p (id INT PRIMARY KEY, v INT, w VARCHAR(20)) PARTITION BY RANGE (id) ({_RANGES})",
    "INSERT INTO p VALUES (1, 1, 'w1'), (2, 2, 'w2'), (11, 11, 'w'), (12, 12, NULL), (25, 25, 'w25'), (30, 30, 'w')",
    "CREATE TABLE q (id INT PRIMARY KEY, v INT, w VARCHAR(20))",
    "INSERT INTO q VALUES (3, 3, 'q3'), (4, 4, 'q4')",
    "CREATE TABLE h (id INT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS 3",
    "INSERT INTO h VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
    "CREATE TABLE bin (id INT PRIMARY KEY, c CHAR(4)) CHARACTER SET binary",
    "INSERT INTO bin VALUES (1, 'ab'), (2, NULL)",
)

_COLUMNS = """
SELECT table_name, column_name, column_type, is_nullable = 'YES', extra LIKE '%%GENERATED', column_key = 'PRI'
FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position
"""
_PARTITIONS = """
SELECT DISTINCT table_name, partition_name, partition_method FROM information_schema.partitions
WHERE table_schema = DATABASE() ORDER BY 1, 2
"""
TYPES = (
    "INT", "BIGINT", "SMALLINT", "TINYINT", "INT UNSIGNED", "VARCHAR(5)", "VARCHAR(30)", "CHAR(4)", "TEXT", "DECIMAL(6,1)",
    "DECIMAL(12,4)", "DATE", "DATETIME", "DATETIME(3)", "TIMESTAMP NULL", "TIME(2)", "YEAR", "JSON", "BLOB", "BINARY(3)", "VARBINARY(9)",
    "FLOAT", "DOUBLE", "BIT(5)", "ENUM('x','y')", "ENUM('q','x')", "SET('r','w','x')", "BOOLEAN",
    "VARCHAR(9) CHARACTER SET latin1", "CHAR(4) CHARACTER SET binary", "CHAR(3) COLLATE utf8mb4_bin", "CHAR(2) BYTE",
)  # fmt: skip
DEFAULTS = {
    "INT": ["7", "'-3'", "(5 + 5)", "(FLOOR(RAND() * 100))"],
    "BIGINT": ["0", "(1)"],
    "VARCHAR(30)": ["'d'", "''", "'it''s'", "(UUID())", "(CONCAT('a', 'b'))", "'é'"],
    "DECIMAL(12,4)": ["1.5", "'2'"],
    "DATE": ["'2020-02-29'", "(CURRENT_DATE)"],
    "DATETIME": ["CURRENT_TIMESTAMP", "'2001-02-03 04:05:06'", "CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"],
    "ENUM('x','y')": ["'y'"],
    "SET('r','w','x')": ["'r,x'"],
    "BIT(5)": ["b'101'"],
    "BOOLEAN": ["TRUE"],
    "CHAR(4)": ["'ab'"],
    "CHAR(4) CHARACTER SET binary": ["'ab'"],
}


def value(rng: random.Random, column: Column) -> str:
    """A literal of a column's type."""
    if column.is_nullable and rng.random() < 0.15:
        return "NULL"
    kind, number = column.type.lower(), rng.randrange(60)
    if column.labels:
        return f"'{rng.choice(column.labels)}'"
    if kind.startswith(("char", "varchar", "text", "mediumtext", "longtext", "tinytext")):
        return f"'{'xyzé'[number % 4]}{number % 100}'"
    forms = {
        "datetime": f"'2024-05-{number % 28 + 1:02} 10:{number:02}:00.5'",
        "timestamp": f"'2024-05-{number % 28 + 1:02} 10:{number:02}:00'",
        "date": f"'2024-01-{number % 28 + 1:02}'",
        "time": f"'-1{number % 10}:{number:02}:01.25'",
        "year": str(2000 + number),
        "json": f"'{{\"k\": {number}}}'",
        "bit": f"b'{number % 16:b}'",
        "varbinary": f"X'{number:02}'",
        "binary": f"X'{number:02}'",
        "blob": f"X'{number:02}00'",
    }
    return next((form for begin, form in forms.items() if kind.startswith(begin)), str(number))


def look(session: Session) -> list[Table]:
    """The tables of a session's database as they are now."""
    columns: dict[str, list[Column]] = {}
    keys: dict[str, list[str]] = {}
    for table, name, kind, nullable, generated, in_key in session.run(_COLUMNS.replace("%%", "%")):
        labels = tuple(kind[kind.index("(") + 2 : -2].split("','")) if kind.startswith(("enum(", "set(")) else ()
        quoted = name if name.isidentifier() and name not in ("primary", "key", "first") else f"`{name}`"
        columns.setdefault(table, []).append(
            Column(quoted, kind, bool(nullable), bool(generated), bool(generated), labels)
        )
        if in_key:
            keys.setdefault(table, []).append(quoted)
    parts: dict[str, list[str]] = {}
    for table, name, _ in session.run(_PARTITIONS):
        parts.setdefault(table, []).extend([name] if name else [])
    return [
        Table(table, "p" if names else "r", None, tuple(names), tuple(keys.get(table, ())), tuple(columns[table]))
        for table, names in parts.items()
        if table in columns
    ]
