"""Views and functions that users read.

One that takes the place of another keeps its rights, and what depends on it, if PostgreSQL can do that: a view may get
columns behind those that it has, a function other words. Otherwise the old one is dropped first.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg.sql import Literal

from cdc.errors import UsageError
from cdc.model.schema import TableName
from cdc.targets.postgres.connection import Session
from cdc.targets.postgres.keys import quoted, quoted_name


def make_view(session: Session, view: TableName, query: str) -> None:
    """Make a view."""
    _put(session, f"VIEW {quoted(view)}", f"VIEW {quoted(view)} AS {query}")


def make_lookup(session: Session, function: TableName, text: str, number: str, query: str) -> None:
    """Make a function of one number: the first value of a query's row, or an error that says the second one."""
    body = f"""
DECLARE
    answer_ bigint;
    refusal_ text;
BEGIN
    {query} INTO answer_, refusal_;
    IF refusal_ IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = refusal_;
    END IF;
    RETURN answer_;
END"""
    session.execute(
        f"CREATE OR REPLACE FUNCTION {quoted(function)}({text} text, {number} bigint DEFAULT -1) RETURNS bigint "
        f"LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS {_literal(session, body)}".encode()
    )


def make_rows(session: Session, function: TableName, parameter: str, columns: Mapping[str, str], query: str) -> None:
    """Make a function whose rows are those of a query, which the planner sees through.

    Raises:
        UsageError: there is one of that name and these parameters, which is somebody else's.
    """
    named = f"FUNCTION {quoted(function)}(text)"
    asked = "SELECT obj_description(found, 'pg_proc') FROM to_regprocedure(%s) AS f (found) WHERE found IS NOT NULL"
    found = session.execute(asked, [f"{quoted(function)}(text)"]).fetchall()
    ours = f"kept by cdc: {function}"  # by its whole name, of which PostgreSQL has 63 bytes
    if found and found != [(ours,)]:
        raise UsageError(
            f"The target has a function {function} already, which this pipeline did not make.",
            hint="Remove or rename it, or use another target: cdc never replaces what it did not make.",
        )
    returned = ", ".join(f"{quoted_name(name)} {kind}" for name, kind in columns.items())
    made = f"{quoted(function)}({parameter} text) RETURNS TABLE ({returned}) LANGUAGE sql STABLE"
    _put(session, named, f"FUNCTION {made} AS {_literal(session, query)}")
    session.execute(f"COMMENT ON {named} IS {_literal(session, ours)}".encode())


def drop_rows(session: Session, function: TableName) -> None:
    """Remove such a function, if it is there."""
    session.execute(f"DROP FUNCTION IF EXISTS {quoted(function)}(text)".encode())


def _put(session: Session, named: str, made: str) -> None:
    try:
        with session.transaction():  # a savepoint of the one that is open
            session.execute(f"CREATE OR REPLACE {made}".encode())
    except (psycopg.errors.InvalidTableDefinition, psycopg.errors.InvalidFunctionDefinition):
        session.execute(f"DROP {named}".encode())
        session.execute(f"CREATE {made}".encode())


def _literal(session: Session, text: str) -> str:
    return Literal(text).as_string(session)
