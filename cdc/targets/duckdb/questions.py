"""One question to an open file, by somebody who may not write, and within limits."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import orjson
import pyarrow as pa
from sqlglot import exp

from cdc.tables.names import CATALOG
from cdc.target import QueryAnswer, QueryWishes
from cdc.targets.duckdb.refusals import NOT_OFFERED, STREAM_ERRORS, TOO_LARGE, TOO_LONG, Refused, of_stream, refusal
from cdc.targets.duckdb.statements import refuse_writing, statements

_LARGEST = 32 << 20  # bytes of an answer, which goes through a socket as a text
_BATCH = 2048  # rows

# The pipeline's own schemas are not looked through for names; they can be named.
SCHEMAS = f"""
SELECT schema_name FROM duckdb_schemas()
WHERE database_name = '{CATALOG}' AND NOT internal AND NOT starts_with(schema_name, '_cdc')
ORDER BY schema_name <> 'public', schema_name = 'main', schema_name
"""
# What reads no file. A macro of the target's, as those of a history, is looked up in the catalog.
_HARMLESS = {"range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree", "summary"}
_HARMLESS |= {
    f"duckdb_{what}"
    for what in (
        *("tables", "views", "columns", "schemas", "types", "functions", "constraints"),
        *("memory", "eviction_queues"),  # why the process is as large as it is (docs/operating.md, Memory)
    )
}
# `json_serialize_plan` binds the query in its text, which opens the files that are named there.
_READS = re.compile(
    r"(read|write|parquet|sniff|query|glob|scan|csv|copy|checkpoint|load|install|attach|json_serialize_plan)",
    re.IGNORECASE,
)
_FILE = re.compile(r"[/\\*?:]|\.\w+$")
_RELATIONS = """
SELECT lower(database_name), lower(schema_name), lower(table_name) FROM duckdb_tables()
UNION ALL SELECT lower(database_name), lower(schema_name), lower(view_name) FROM duckdb_views()
"""


def schemas_of(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The schemas in which a name without one is looked for, `public` first."""
    return [str(schema) for (schema,) in connection.execute(SCHEMAS).fetchall()]


def look_in(connection: duckdb.DuckDBPyConnection, schemas: list[str]) -> None:
    """Have names without a schema looked for in these."""
    path = ",".join(f"{CATALOG}.{exp.to_identifier(schema, quoted=True).sql()}" for schema in schemas or ["main"])
    connection.execute(f"SET search_path = {exp.Literal.string(path).sql()}")


@contextmanager
def looking(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor in a transaction that cannot write, which is interrupted when the time is over.

    Raises:
        Refused: what DuckDB says.
    """
    cursor = connection.cursor()
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    try:
        look_in(cursor, schemas_of(cursor))
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        timer.start()
        yield cursor
    except (duckdb.Error, *STREAM_ERRORS) as error:
        failure = error if isinstance(error, duckdb.Error) else of_stream(error)
        if isinstance(failure, duckdb.InterruptException):
            raise Refused(f"The question took longer than {seconds:g} s.", TOO_LONG) from error
        raise refusal(failure) from error
    finally:
        timer.cancel()
        cursor.close()  # which ends the transaction


def answer(connection: duckdb.DuckDBPyConnection, wishes: QueryWishes) -> QueryAnswer:
    """Carry out a statement that only reads the tables of this file.

    A file that is opened and closed in this process could be the target's own, whose lock would be gone with that
    (fcntl(2)); others could then write to it. So nothing here may read a file.

    Raises:
        Refused: it is another statement, it failed, or it took too long.
    """
    found = statements(wishes.sql)
    if len(found) != 1:
        raise Refused("One statement is answered at a time.", "42601")
    refuse_writing(found[0])
    with looking(connection, wishes.seconds) as cursor:
        cursor.execute("SET SESSION python_enable_replacements = false")  # a name is no variable of this program
        _refuse_files(cursor, found[0])
        relation = cursor.sql(found[0])
        reader = relation.to_arrow_reader(_BATCH)
        batches: list[pa.RecordBatch] = []
        count = size = 0
        while count <= wishes.limit and (batch := next(reader, None)) is not None:
            count += batch.num_rows
            size += batch.nbytes
            if size > _LARGEST:
                raise Refused(f"The answer is larger than {_LARGEST >> 20} MB.", TOO_LARGE, hint="Ask for less.")
            batches.append(batch.slice(0, batch.num_rows - max(0, count - wishes.limit)))
        types = [str(kind) for kind in relation.types]
        return QueryAnswer(pa.Table.from_batches(batches, reader.schema), types, count > wishes.limit)


def _refuse_files(cursor: duckdb.DuckDBPyConnection, statement: str) -> None:
    inner = re.sub(r"^explain\s+(analy[sz]e\s+)?(\([^()]*\)\s*)?", "", statement, flags=re.IGNORECASE)
    ((tree,),) = cursor.execute("SELECT json_serialize_sql(?)", [inner]).fetchall()
    try:
        read = orjson.loads(tree)
    except orjson.JSONDecodeError as error:
        raise Refused("The question is nested too deeply.", "54001") from error
    if read["error"]:
        raise Refused(f"This is answered as a SELECT only: {read.get('error_message', '')}", NOT_OFFERED)
    macros = {
        name
        for (name,) in cursor.execute(
            f"SELECT function_name FROM duckdb_functions() WHERE database_name = '{CATALOG}' AND NOT internal"
        ).fetchall()
    }
    known = set(cursor.execute(_RELATIONS).fetchall())
    for node in _nodes(read):
        name = str(node.get("function_name") or "").lower()
        is_table = node.get("type") == "TABLE_FUNCTION"
        called = str(node["function"].get("function_name", "")).lower() if is_table else ""
        if is_table and called not in _HARMLESS | macros:
            raise Refused(
                f"{called}() is not answered: only the tables of the target are read here.", "42501", hint=_HINT
            )
        if name and name not in macros | _HARMLESS and _READS.match(name):
            raise Refused(
                f"{name}() is not answered: only the tables of the target are read here.", "42501", hint=_HINT
            )
        if node.get("type") == "BASE_TABLE":
            _refuse_unknown([str(node.get(f"{part}_name") or "") for part in ("catalog", "schema", "table")], known)


def _refuse_unknown(parts: list[str], known: set[tuple[str, ...]]) -> None:
    """Refuse a name that DuckDB may take as that of a file. It puts all parts together for that: `"/tmp/x".csv` is one.

    Args:
        known: database, schema and name of all tables and views.
    """
    database, schema, table = (part.lower() for part in parts)
    if not schema:
        if _FILE.search(table):
            raise Refused(f"{table} would be a file: only the tables of the target are read here.", "42501", hint=_HINT)
    elif (schema, table) not in {names[1:] for names in known if database in ("", names[0])}:
        named = ".".join(filter(None, parts))
        raise Refused(f"There is no table {named} in the target, and nothing else is read here.", "42P01")


_HINT = "Ask the published copy (`cdc run ... --publish FILE`), or open that with DuckDB."


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
