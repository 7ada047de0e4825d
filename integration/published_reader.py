"""Reads a published copy as others do, with DuckDB alone: `python published_reader.py FILE SCHEMA [HOLD]`.

Opens the file again and again until its input ends, and writes a line for each time: the position, what all accounts hold
together, and how many transfers there are; or `error` and what DuckDB said. With HOLD it opens the file once, and asks
again and again.
"""

from __future__ import annotations

import select
import sys
import time

import duckdb

_QUERY = (
    "SELECT (SELECT position_order FROM _cdc.checkpoint), (SELECT sum(balance) FROM {0}.accounts), "
    "(SELECT count(*) FROM {0}.transfers), (SELECT sum(amount) FROM {0}.transfers), "
    "(SELECT sum(sent) FROM {0}.accounts)"
)


def main(file: str, schema: str, *hold: str) -> None:
    query = _QUERY.format(schema)
    connection = duckdb.connect(file, read_only=True) if hold else None
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            if connection is not None:
                found = connection.execute(query).fetchone()
            else:
                with duckdb.connect(file, read_only=True) as other:
                    found = other.execute(query).fetchone()
            print(*(found or ()), flush=True)
        except duckdb.Error as error:
            print("error", type(error).__name__, str(error).replace("\n", " "), flush=True)
        time.sleep(0.02)


main(*sys.argv[1:])
