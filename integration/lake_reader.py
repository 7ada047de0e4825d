"""Reads a lake as others do, with DuckDB alone: `python lake_reader.py ADDRESS rows|answer|sums ...`.

`rows SCHEMA.TABLE COLUMNS` writes the rows of a table, sorted, one repr in a line. `answer QUERY` writes the names of its
columns and then each row, as JSON, with values as Python's texts. `sums QUERY` asks a query again and
again, and writes one line of each answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from urllib.parse import urlsplit

import duckdb

_SECRET = "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b', ENDPOINT '{}', URL_STYLE 'path', USE_SSL false)"


def attached(address: str) -> duckdb.DuckDBPyConnection:
    """A connection that only reads."""
    connection = duckdb.connect()
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        connection.execute(_SECRET.format(urlsplit(endpoint).netloc))
    connection.execute(f"ATTACH '{address}' AS lake (READ_ONLY)")
    connection.execute("USE lake")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def main(address: str, what: str, *arguments: str) -> None:
    if what == "rows":
        table, columns = arguments
        found = attached(address).execute(f"SELECT {columns} FROM {table}").fetchall()
        print("\n".join(sorted(map(repr, found))))
        return
    (query,) = arguments
    if what == "answer":
        found = attached(address).execute(query)
        print(json.dumps([column[0] for column in found.description or ()]))
        for row in found.fetchall():
            print(json.dumps([None if value is None else str(value) for value in row]))
        return
    connection = None
    while True:
        try:
            connection = connection or attached(address)
            print(*connection.execute(query).fetchall()[0], flush=True)
        except (duckdb.CatalogException, duckdb.IOException, duckdb.InvalidInputException):  # nothing is there yet
            connection = None
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
