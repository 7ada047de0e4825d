"""Debezium's format as a sink of Kafka Connect sees it: Kafka's JsonConverter and Debezium's own classes read the messages,
and what they make of them is compared with the source's rows."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64encode
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from cdc.demo.private import cache_folder
from cdc.errors import UsageError
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.conftest import Database, MySqlDatabase
from integration.kafka import PrivateKafka, Record
from integration.test_mysql_types import BOTH
from integration.test_types import SETUP, TYPES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FLOATS = {"float32": np.float32, "float64": np.float64}

Fields = dict[str, tuple[str, str | None, str | None]]  # by name: type, what it means, value


def consumed(records: list[Record]) -> list[tuple[str, Fields | None, Fields | None]]:
    """Topics, keys and rows of what reaches a sink."""
    libraries, java = cache_folder() / "debezium" / "libs", shutil.which("java")
    if java is None or not libraries.is_dir():
        raise UsageError("There is no Debezium on this machine.", hint="Install Java and Maven, then `make servers`.")
    lines = [b"\t".join((r.topic.encode(), _line(r.key), _line(r.value))) for r in records]
    command = [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{libraries}/*"]
    program = Path(__file__).with_name("DebeziumConsumer.java")
    done = subprocess.run([*command, program], input=b"\n".join(lines), capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    answer = [json.loads(line) for line in done.stdout.splitlines()]
    return [(said["topic"], said["key"], said["row"]) for said in answer]


def _line(content: bytes | None) -> bytes:
    return b64encode(content) if content is not None else b"-"


def tables(records: list[Record]) -> dict[str, dict[str, dict[str, str | None]]]:
    """By topic and key the rows that a sink has in the end, as the source would write their values."""
    held: dict[str, dict[str, dict[str, str | None]]] = {}
    for topic, key, row in consumed(records):
        assert key is not None
        if topic.endswith(".transaction"):
            continue
        place = " ".join(str(as_text(*value)) for value in key.values())
        if row is None:
            held.setdefault(topic, {}).pop(place, None)
        else:
            held.setdefault(topic, {})[place] = {name: as_text(*value) for name, value in row.items()}
    return held


def as_text(kind: str, meaning: str | None, value: str | None) -> str | None:
    """A value as the source writes it."""
    if value is None:
        return None
    match meaning and meaning.rpartition(".")[2]:
        case "Date":
            return (date(1970, 1, 1) + timedelta(int(value))).isoformat()
        case "MicroTime":
            return clock(int(value))
        case "MicroTimestamp":
            return moment(_EPOCH + timedelta(microseconds=int(value)))
        case "Bits":
            return str(int.from_bytes(bytes.fromhex(value), "little"))
        case "ZonedTimestamp":
            return value.replace("T", " ").removesuffix("Z") + ("+00" if value.endswith("Z") else "")
    if kind == "boolean":
        return value[0]
    return number(kind, value) if kind in _FLOATS else value


def number(kind: str, text: str) -> str:
    """A float, of which a reader has no minus before a zero."""
    return str(_FLOATS[kind](text) + 0)


def clock(microseconds: int) -> str:
    seconds, fraction = divmod(abs(microseconds), 1_000_000)
    rest = f".{fraction:06d}".rstrip("0") if fraction else ""
    sign = "-" if microseconds < 0 else ""
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{rest}"


def moment(at: datetime) -> str:
    seconds = (at.hour * 60 + at.minute) * 60 + at.second
    return f"{at.date().isoformat()} {clock(seconds * 1_000_000 + at.microsecond)}"


def run(database: Database | MySqlDatabase, kafka: PrivateKafka) -> None:
    """Everything up to now."""
    target = f"kafka:{kafka.address('schemas=yes', 'transactions=yes')}"
    open_pipeline(database.dsn, target, Options(database.name, format="debezium", until_caught_up=True)).run()


# Two or more values of each type of PostgreSQL, among them those that no number of Debezium's has room for.
_OF_POSTGRES = {
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["4294967295", "0"],
    "xid8": ["18446744073709551615", "9223372036854775808", "9223372036854775807"],
    "real": ["NaN", "Infinity", "1.1", "-0", "3.4028235e+38"],
    "double precision": ["-Infinity", "NaN", "0.1", "5e-324", "-0", "1e+15"],
    "boolean": ["t", "f"],
    "bytea": ["\\x", "\\x00ff"],
    "date": ["infinity", "0044-03-15 BC", "2024-02-29", "10000-01-01", "1969-12-31"],
    "time": ["24:00:00", "23:59:59.999999", "00:00:00"],
    "timestamp": ["-infinity", "0044-03-15 12:00:00 BC", "2024-02-29 23:59:59.5", "1969-12-31 23:59:59"],
    "timestamptz": ["infinity", "2024-02-29 23:59:59.5+00", "0044-03-15 12:00:00+00 BC"],
    "numeric(12,2)": ["NaN", "-0.01"],
    "numeric": ["Infinity", "9" * 200, "1." + "0" * 40],
    "text": ["", "NULL", "é😀\t\n\\\"'"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "money": ["-1234567.50", "12.34"],
    "timetz": ["23:59:59.5+02", "00:00:00.25-11:30", "24:00:00+00"],
    "bit(5)": ["10110", "00001"],
    "jsonb": ['{"a": 1}', "null"],
    "json": [' {"a":1,"a":2}', "1e400"],
}
_ANYTHING = {
    "interval": "1 mon -2 days 03:00",
    "inet": "10.0.0.1/8",
    "mood": "sad",
    "pair": '(1,"a b")',
}
_ANYTHING |= {"int[]": "{1,NULL}", "text[]": '{"a b",NULL}', "int4range": "[1,5)", "varbit": "00101", "point": "(1,2)"}
_ANYTHING |= {
    "cents": "1.50",
    "char(5)": "ab",
    "tsvector": "'x y':3",
    "pg_lsn": "0/16B3748",
    "double precision[]": "{NaN}",
}


def test_types_of_postgres(database: Database, kafka: PrivateKafka) -> None:
    """A-71, A-72: each value of each type is read as what it is, by copy and stream, as rows and as keys."""
    kinds = _OF_POSTGRES | {kind: [value] for kind, value in _ANYTHING.items()}
    assert set(kinds) <= set(TYPES)
    columns = [f"c{number} {kind}" for number, kind in enumerate(kinds)]
    database.execute(f"{SETUP} CREATE TABLE t (id int PRIMARY KEY, {', '.join(columns)})")
    database.execute("CREATE TABLE k (d date PRIMARY KEY, f float8 NOT NULL)")
    rows = [[values[i % len(values)] for values in kinds.values()] for i in range(6)]
    places = ", ".join(f"%s::text::{kind}" for kind in kinds)
    with psycopg.connect(database.dsn, autocommit=True, options="-c timezone=UTC") as connection:

        def write(first: int) -> None:
            for number, row in enumerate([*rows, [None] * len(kinds)]):
                connection.execute(f"INSERT INTO t VALUES (%s, {places})".encode(), [first + number, *row])

        write(0)
        connection.execute("INSERT INTO k VALUES ('infinity', 'NaN'), ('2024-01-01', 1), ('2024-01-02', 2)")
        run(database, kafka)
        write(100)
        connection.execute("UPDATE t SET id = id + 1000 WHERE id % 2 = 1")
        connection.execute("UPDATE t SET c0 = 7 WHERE id = 100; DELETE FROM t WHERE id = 2")
        connection.execute("UPDATE k SET d = '2024-01-03' WHERE d = 'infinity'")
        connection.execute("UPDATE k SET d = '-infinity' WHERE d = '2024-01-01'; DELETE FROM k WHERE d = '2024-01-02'")
        connection.execute("ALTER TABLE k ALTER f DROP NOT NULL; UPDATE k SET f = NULL WHERE d = '-infinity'")
        connection.execute("SELECT pg_logical_emit_message(true, 'who', 'ä')")
        run(database, kafka)
        answer = tables(kafka.events(database.name))
        columns_of = {"t": {"id": "int"} | {f"c{i}": kind for i, kind in enumerate(kinds)}}
        columns_of["k"] = {"d": "date", "f": "double precision"}
        for table, types in columns_of.items():
            chosen = ", ".join(f"CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END" for name in types)
            source = connection.execute(f"SELECT {chosen} FROM {table}".encode()).fetchall()
            found = answer[f"{database.name}.public.{table}"]
            assert len(found) == len(source) > 1
            for row in source:
                expected = [_as_read(kind, text) for kind, text in zip(types.values(), row, strict=True)]
                assert found[row[0]] == dict(zip(types, expected, strict=True))


def _as_read(kind: str, text: str | None) -> str | None:
    """A value of PostgreSQL's as `as_text` has it. H14: what Debezium has in a form of its own."""
    if text is None or kind == "bytea":
        return text and text.removeprefix("\\x")
    if kind in ("real", "double precision") and text[-1].isdigit():
        return number("float32" if kind == "real" else "float64", text)
    match kind:
        case "money":
            return text.replace("$", "").replace(",", "")
        case "bit(5)":
            return str(int(text, 2))
        case "timetz":
            return {"23:59:59.5+02": "21:59:59.5Z", "00:00:00.25-11:30": "11:30:00.25Z"}.get(text, text)
    return text


_NO_DAYS = {
    "date null": ["'0000-00-00'", "'2020-02-00'", "'2020-01-01'"],
    "datetime(3) null": ["'0000-00-00'", "'2020-01-01'"],
}


def test_types_of_mysql(my: MySqlDatabase, kafka: PrivateKafka) -> None:
    """A-71, B-50, B-51: the same on MySQL and MariaDB, with unsigned integers and dates of no calendar."""
    kinds = BOTH | _NO_DAYS
    columns = [f"c{number} {kind}" for number, kind in enumerate(kinds)]
    my.execute(f"CREATE TABLE t (id bigint unsigned PRIMARY KEY, {', '.join(columns)})")
    rows = [[values[i % len(values)] for values in kinds.values()] for i in range(max(map(len, kinds.values())))]
    rows.append(["NULL"] * len(kinds))

    def inserts(first: int) -> list[str]:
        return [f"INSERT IGNORE INTO t VALUES ({first + i}, {', '.join(row)})" for i, row in enumerate(rows)]

    lax = "SET sql_mode = ''"
    my.execute(lax, *inserts(0))
    run(my, kafka)
    most = (1 << 64) - 1000
    my.execute(
        lax, *inserts(100), *inserts(most), "UPDATE t SET id = id + 1000 WHERE id = 3", "DELETE FROM t WHERE id = 1"
    )
    my.execute(lax, f"DELETE FROM t WHERE id = {most + 1}", f"UPDATE t SET id = 7000 WHERE id = {most + 2}")
    run(my, kafka)
    (found,) = tables(kafka.events(my.name)).values()
    chosen = [_selected(f"c{index}", kind) for index, kind in enumerate(kinds)]
    source = my.execute("SET time_zone = '+00:00'", f"SELECT CAST(id AS CHAR), {', '.join(chosen)} FROM t")
    assert len(found) == len(source) > 25
    for identity, *values in source:
        expected = {f"c{i}": _said(value, kind) for i, (value, kind) in enumerate(zip(values, kinds, strict=True))}
        assert found[identity] == {"id": identity, **expected}


def _selected(name: str, kind: str) -> str:
    """A column as its server says all of it."""
    match kind.partition("(")[0].split()[0]:
        case "float":
            return f"{name} * 1e0"
        case "decimal":
            return f"CAST({name} AS CHAR)"
        case "bit":
            return f"{name} + 0"
        case "geometry" | "point" | "polygon":
            return f"ST_AsBinary({name})"
    return name


def _said(value: Any, kind: str) -> str | None:
    """What a server says as the source's text."""
    if value is None:
        return None
    if kind == "bit(1)":
        return "t" if value else "f"
    if isinstance(value, float):
        return number("float32" if kind == "float" else "float64", repr(value))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, timedelta):
        return clock(value // timedelta(microseconds=1))
    if isinstance(value, datetime):
        return moment(value) + ("+00" if kind.startswith("timestamp") else "")
    return value.replace(".000", "") if kind.startswith("datetime(3)") and isinstance(value, str) else str(value)
