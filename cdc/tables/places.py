"""From what a user names to a place in the log, for SQL as a function, and for commands as a query.

What is a time, and what a position, is as `cdc.model.moment` has it. The time of a place is the largest of those that
were committed up to there, so that it never goes back: clocks do, and sessions may say any time. So a time means the
place before the first commit that is later. A copy has the time of the machine that read it, whose clock is another
one: the first one says when a history begins, and a later one counts once its time, or a commit after it, has come. A
place in the log of PostgreSQL need not be that of a commit: it stands for all commits before it.
"""

from __future__ import annotations

from sqlglot import exp

from cdc.model.schema import TableName
from cdc.tables import sql
from cdc.tables.engine import Recalling

SCHEMA = "_cdc_history"
PLACE = TableName(SCHEMA, "place")  # the function

NOT_YET = (1 << 63) - 1  # where the history of a table begins of which only some parts have come
AT, TABLE = "_cdc_at", "_cdc_table"  # what functions are given; no column of a followed table can be called so
_HOW = (
    "Write a time as 2026-01-31 12:00:00+00 (UTC if it names no zone) or @1769860800 (seconds since 1970), a position "
    "as cdc history shows it."
)
# Without backslashes, which some sessions of PostgreSQL read in another way.
_CLOCK = "[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?"
_ZONE = "(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"

_MICROS = f"""
    WHEN regexp_matches(asked, '^@[0-9]{{1,12}}([.][0-9]{{1,6}})?$')
        THEN CAST(CAST(substr(asked, 2) AS DECIMAL(38, 6)) * 1000000 AS BIGINT)
    WHEN regexp_matches(asked, '^{_DATE}([T ]{_CLOCK}{_ZONE}?)?$')
        THEN micros(TRY_CAST(asked || CASE
            WHEN length(asked) = 10 THEN ' 00:00:00+00'
            WHEN regexp_matches(asked, '{_CLOCK}{_ZONE}$') THEN ''
            ELSE '+00' END AS TIMESTAMPTZ))"""
_LSN = """
    WHEN regexp_matches(asked, '^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$')
        THEN CAST(CAST('0x' || split_part(asked, '/', 1) AS BIGINT) AS DECIMAL(38, 0)) * 4294967296
            + CAST('0x' || split_part(asked, '/', 2) AS BIGINT)"""
_WHY_NOT = f"""
    WHEN micros > greatest(micros(now()), (SELECT micros(max(committed_at)) FROM {SCHEMA}.commits))
        THEN shown(micros) || ' is in the future.'
    WHEN micros IS NOT NULL OR exact IS NOT NULL THEN NULL
    WHEN lsn > greatest((SELECT max(position_order) FROM {SCHEMA}.commits),
            (SELECT max(position_order) FROM _cdc.checkpoint))
        THEN asked || ' is in the future: this history ends at ' || (SELECT position FROM _cdc.checkpoint) || '.'
    WHEN lsn IS NULL THEN asked || ' is neither a position that this history knows nor a time. {_HOW}'"""
_FOUND = f"""
    WHEN why_not IS NOT NULL THEN NULL
    WHEN micros IS NOT NULL
        THEN (SELECT coalesce(max(position_order), -1) FROM {SCHEMA}.commits
            WHERE position_order < later AND (position_order <= (SELECT max(position_order) FROM {SCHEMA}.commits
                WHERE transaction IS NOT NULL AND position_order < later) OR micros(committed_at) <= micros))
    WHEN exact IS NOT NULL THEN exact
    ELSE (SELECT coalesce(max(position_order), -1) FROM {SCHEMA}.commits WHERE position_order < lsn)"""
_REFUSAL = f"""
    WHEN place IS NULL THEN why_not
    WHEN place >= begins AND unknown IS NULL THEN NULL
    WHEN place >= begins THEN asked || ' is where it is not known what this table held: ' || unknown || '.'
    WHEN begins = {NOT_YET} THEN 'This table is still being copied: its history has not begun.'
    ELSE asked || ' is before this history begins: at '
        || coalesce((SELECT position || ', ' || shown(micros(committed_at)) FROM {SCHEMA}.commits
            WHERE position_order <= begins ORDER BY position_order DESC LIMIT 1), 'no commit yet') || '.'"""


def place_query(
    engine: Recalling,
    since: str,
    unknown: str = "NULL",
    at: exp.Expr | None = None,
    table: exp.Expr | None = None,
) -> exp.Query:
    """The query whose only row has the order of a place and, if there is no answer as of it, a text that says why.

    Args:
        since: an expression for where the history of the table TABLE, the source's number, begins; NULL if that is not
            known.
        unknown: an expression for what is not known of that table as of `place`, from where to where; NULL if it is
            known.
        at, table: what was asked for, and the table; the parameters of a function unless they are given.
    """
    given = {name: value for name, value in ((AT, at), (TABLE, table)) if value is not None}
    query = sql.worded(
        engine,
        # Each step once: what is not materialized, PostgreSQL puts in wherever it is named.
        f"""
WITH written AS MATERIALIZED (SELECT coalesce(trim(CAST({AT} AS VARCHAR)), 'NULL') AS asked),
read AS MATERIALIZED (SELECT *, CASE {_MICROS} END AS micros, CASE {_LSN} END AS lsn,
    (SELECT max(position_order) FROM {SCHEMA}.commits WHERE position = asked) AS exact FROM written),
sought AS MATERIALIZED (SELECT *, CASE {_WHY_NOT} END AS why_not, CASE WHEN micros IS NOT NULL THEN coalesce(
    (SELECT min(position_order) FROM {SCHEMA}.commits WHERE micros(committed_at) > micros
        AND (transaction IS NOT NULL OR position_order = (SELECT min(position_order) FROM {SCHEMA}.commits))),
    {NOT_YET}) END AS later FROM read),
found AS MATERIALIZED (SELECT *, CASE {_FOUND} END AS place,
    coalesce({since}, (SELECT min(position_order) FROM {SCHEMA}.commits)) AS begins FROM sought),
judged AS MATERIALIZED (SELECT *, {unknown} AS unknown FROM found)
SELECT place, CASE {_REFUSAL} END AS refusal FROM judged""",
        given,
    )
    assert isinstance(query, exp.Query)
    return query
