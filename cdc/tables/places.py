"""From what a user names to a place in the log, as a macro: of the file, for SQL, and of a connection that
only reads.

What is a time, and what a position, is as `cdc.model.moment` has it. The time of a place is the largest of those that
were committed up to there, so that it never goes back: clocks do, and sessions may say any time. So a time means the
place before the first commit that is later. A copy has the time of the machine that read it, whose clock is another
one: the first one says when a history begins, and a later one counts once its time, or a commit after it, has come. A
place in the log of PostgreSQL need not be that of a commit: it stands for all commits before it.
"""

from __future__ import annotations

SCHEMA = "_cdc_history"

NOT_YET = (1 << 63) - 1  # where the history of a table begins of which only some parts have come
AT = "_cdc_at"  # the macros' parameter, which no column of a followed table can be called
_HOW = (
    "Write a time as 2026-01-31 12:00:00+00 (UTC if it names no zone) or @1769860800 (seconds since 1970), a position "
    "as cdc history shows it."
)


def _error(*pieces: str) -> str:
    return f"CAST(error({' || '.join(pieces)}) AS BIGINT)"


def shown(micros: str) -> str:
    """A time as people read it, in UTC whatever the session's zone."""
    return f"strftime(make_timestamp({micros}), '%Y-%m-%d %H:%M:%S.%f+00')"


_MICROS = """
    WHEN regexp_full_match(asked, '@\\d{1,18}(\\.\\d{1,6})?')
        THEN TRY_CAST(CAST(substr(asked, 2) AS DECIMAL(38, 6)) * 1000000 AS BIGINT)
    WHEN regexp_full_match(asked, '\\d{4}-\\d\\d-\\d\\d([T ]\\d\\d:\\d\\d.*)?')
        THEN epoch_us(TRY_CAST(asked || CASE
            WHEN length(asked) = 10 THEN ' 00:00:00+00'
            WHEN regexp_matches(asked, '(Z|[+-]\\d\\d(:?\\d\\d)?)$') THEN ''
            ELSE '+00' END AS TIMESTAMPTZ))"""
_LSN = """
    WHEN regexp_full_match(asked, '[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}')
        THEN CAST('0x' || split_part(asked, '/', 1) AS HUGEINT) * 4294967296
            + CAST('0x' || split_part(asked, '/', 2) AS HUGEINT)"""
_FOUND = f"""
    WHEN micros > greatest(epoch_us(now()), (SELECT max(epoch_us(committed_at)) FROM {SCHEMA}.commits))
        THEN {_error(shown("micros"), "' is in the future.'")}
    WHEN micros IS NOT NULL
        THEN (SELECT coalesce(max(position_order), -1) FROM {SCHEMA}.commits
            WHERE position_order < later AND (position_order <= (SELECT max(position_order) FROM {SCHEMA}.commits
                WHERE transaction IS NOT NULL AND position_order < later) OR epoch_us(committed_at) <= micros))
    WHEN exact IS NOT NULL THEN exact
    WHEN lsn > greatest((SELECT max(position_order) FROM {SCHEMA}.commits),
            (SELECT max(position_order) FROM _cdc.checkpoint))
        THEN {
    _error("asked", "' is in the future: this history ends at '", "(SELECT position FROM _cdc.checkpoint)", "'.'")
}
    WHEN lsn IS NOT NULL
        THEN (SELECT coalesce(max(position_order), -1) FROM {SCHEMA}.commits WHERE position_order < lsn)
    ELSE {_error("asked", f"' is neither a position that this history knows nor a time. {_HOW}'")}"""
_TOO_EARLY = _error(
    "asked",
    "' is before this history begins: at '",
    f"coalesce((SELECT position || ', ' || {shown('epoch_us(committed_at)')} FROM {SCHEMA}.commits "
    "WHERE position_order <= begin ORDER BY position_order DESC LIMIT 1), 'no commit yet')",
    "'.'",
)


_IN_A_GAP = _error("asked", "' is where it is not known what this table held: '", "unknown", "'.'")


def place_macro(name: str, since: str, unknown: str = "NULL") -> str:
    """The statement that makes the macro `name(at, table)`, whose value is the order of a place.

    Args:
        name: qualified; otherwise it is of the connection alone.
        since: an expression for where the history of the table `_cdc_table`, the source's number, begins; NULL if that
            is not known.
        unknown: an expression for what is not known of that table as of the place `found`, from where to where; NULL if
            it is known.
    """
    return f"""
CREATE OR REPLACE {"" if "." in name else "TEMP "}MACRO {name}({AT}, _cdc_table := -1) AS (
    SELECT CASE
        WHEN found >= begin AND unknown IS NULL THEN found
        WHEN found >= begin THEN {_IN_A_GAP}
        WHEN begin = {NOT_YET} THEN {_error("'This table is still being copied: its history has not begun.'")}
        ELSE {_TOO_EARLY} END FROM (SELECT *, {unknown} AS unknown FROM (
        SELECT asked, coalesce({since}, (SELECT min(position_order) FROM {SCHEMA}.commits)) AS begin,
            CASE {_FOUND} END AS found
        FROM (SELECT *, coalesce((SELECT min(position_order) FROM {SCHEMA}.commits WHERE epoch_us(committed_at) > micros
                AND (transaction IS NOT NULL OR position_order = (SELECT min(position_order) FROM {SCHEMA}.commits))),
                9223372036854775807) AS later
            FROM (SELECT asked, CASE {_MICROS} END AS micros, CASE {_LSN} END AS lsn,
                    (SELECT max(position_order) FROM {SCHEMA}.commits WHERE position = asked) AS exact
                FROM (SELECT coalesce(trim(CAST({AT} AS VARCHAR)), 'NULL') AS asked))))));
"""
