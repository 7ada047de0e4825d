"""What people read of a history: a table's versions, and its rows now, at the checkpoint, and as of a place."""

from __future__ import annotations

from cdc.model.schema import TableName
from cdc.model.standing import State
from cdc.tables.places import NOT_YET
from cdc.tables.versioned.store import COPIED, DELETED, MOMENT, OP, POSITION, SAME, TRANSACTION, Shown
from cdc.targets.clickhouse.spelling import VERSION, begin_of, literal, order_of, ordinal_of, quoted

COMMITS = "position_order Int64, position String, committed_at DateTime64(6, 'UTC'), transaction Nullable(Int64)"
_FOUND, _FOLLOWING, _NEXT, _PLACE = "_cdc_found", "_cdc_following", "_cdc_next", "_cdc_place"
_NEVER = (1 << 63) - 1


def freshness_query(records: str) -> str:
    """How fresh each table is (docs/reading.md), by the records of `cdc.tables.versioned.state`.

    Args:
        records: the table that has them, quoted.
    """

    def kind(name: str) -> str:
        content = f"substring(name, {len(name) + 2}) AS identity, content"
        return f"(SELECT {content} FROM {records} FINAL WHERE NOT gone AND startsWith(name, '{name}:'))"

    def text(alias: str, field: str) -> str:
        return f"JSONExtractString({alias}.content, '{field}')"

    def moment(field: str) -> str:
        return f"fromUnixTimestamp64Micro(JSONExtract(p.content, '{field}', 'Nullable(Int64)'), 'UTC') AS {field}"

    # Where a join finds nothing there is an empty text.
    states = (
        f"c.identity != '', '{State.COPYING}', a.identity != '', {text('a', 'state')}, "
        f"s.identity != '', '{State.SUSPECT}', '{State.FOLLOWING}'"
    )
    reasons = f"c.identity != '', '', a.identity != '', {text('a', 'reason')}, {text('s', 'reason')}"
    return (
        f"SELECT {text('t', 'schema')} AS schema_name, {text('t', 'name')} AS table_name, multiIf({states}) AS state, "
        f"multiIf({reasons}) AS reason, {text('p', 'position')} AS position, "
        f"{moment('committed_at')}, {moment('applied_at')} "
        f"FROM {kind('table')} AS t "
        f"LEFT JOIN {kind('copying')} AS c ON c.identity = t.identity "
        f"LEFT JOIN {kind('apart')} AS a ON a.identity = t.identity "
        f"LEFT JOIN {kind('suspect')} AS s ON s.identity = t.identity "
        f"CROSS JOIN (SELECT content FROM {records} FINAL WHERE NOT gone AND name = 'freshness') AS p "
        "SETTINGS join_use_nulls = 0"
    )


def names_of(table: TableName) -> list[TableName]:
    """The views of a table: its rows now, at the checkpoint, and as of a place, and its versions."""
    return [
        table,
        TableName(table.schema, f"{table.name}_at_checkpoint"),
        TableName(table.schema, f"{table.name}_as_of"),
        TableName(f"{table.schema}_history", table.name),
    ]


def queries_of(shown: Shown, rows: str, records: str, commits: str) -> list[str]:
    """What these views ask.

    Args:
        rows, records, commits: the tables that they read, quoted.
    """
    behind = f"(SELECT JSONExtractInt(any(content), 'order') FROM {records} FINAL WHERE name = 'checkpoint')"
    place = f"WITH ({order_query(shown.identity, shown.name, records, commits)}) AS {_PLACE} "
    return [
        rows_at(shown, rows, "true"),
        rows_at(shown, rows, f"{VERSION} < {begin_of(behind)}"),
        place + rows_at(shown, rows, f"{VERSION} < {begin_of(f'{_PLACE} + 1')}"),
        _versions(shown, rows),
    ]


def rows_at(shown: Shown, rows: str, condition: str) -> str:
    """The newest of each key's versions that fulfil a condition, unless that is a deleted row."""
    others = [name for name in shown.columns if name not in shown.key]
    key = ", ".join(map(quoted, shown.key))
    newest = f"argMax(tuple({', '.join([*map(quoted, others), DELETED])}), {VERSION}) AS {_FOUND}"
    listed = [
        quoted(name) if name in shown.key else f"tupleElement({_FOUND}, {others.index(name) + 1}) AS {quoted(name)}"
        for name in shown.columns
    ]
    return (
        f"SELECT {', '.join(listed)} FROM (SELECT {key}, {newest} FROM {rows} WHERE {condition} GROUP BY {key} "
        f"SETTINGS optimize_aggregation_in_order = 1) WHERE NOT tupleElement({_FOUND}, {len(others) + 1})"
    )


def _versions(shown: Shown, rows: str) -> str:
    """Each version with its begin and its end. One that was appended twice counts once, and one that ended where a copy
    began, which found it again, goes on."""
    over = (
        f"OVER (PARTITION BY {', '.join(map(quoted, shown.key))} ORDER BY {VERSION} "
        "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)"
    )
    following = f"SELECT *, leadInFrame(tuple({VERSION}, {OP})) {over} AS {_FOLLOWING} FROM {rows}"
    counts = (
        f"tupleElement({_FOLLOWING}, 1) <> {VERSION} AND {OP} <> '{SAME}' "
        f"AND NOT ({DELETED} AND {OP} = 'copy' AND tupleElement({_FOLLOWING}, 2) = '{SAME}')"
    )
    stamps = [VERSION, POSITION, MOMENT, OP, TRANSACTION]
    following = f"SELECT *, leadInFrame(tuple({', '.join(stamps)})) {over} AS {_NEXT} FROM ({following}) WHERE {counts}"
    version, position, moment, op, transaction = (f"tupleElement({_NEXT}, {number})" for number in range(1, 6))
    ends = {
        "_cdc_valid_to": order_of(version),
        "_cdc_valid_to_position": position,
        "_cdc_valid_to_time": moment,
        "_cdc_ended_by": op,
        "_cdc_ended_transaction": transaction,
        "_cdc_ended_ordinal": _ordinal(version),
    }
    said = [
        *map(quoted, shown.columns),
        f"{order_of(VERSION)} AS _cdc_valid_from",
        f"{POSITION} AS _cdc_valid_from_position",
        f"{MOMENT} AS _cdc_valid_from_time",
        OP,
        TRANSACTION,
        f"{_ordinal(VERSION)} AS _cdc_ordinal",
        *(f"if({version} = 0, NULL, {value}) AS {name}" for name, value in ends.items()),
    ]
    return f"SELECT {', '.join(said)} FROM ({following}) WHERE NOT {DELETED}"


def _ordinal(version: str) -> str:
    """NULL where a copy is what was read."""
    return f"if({ordinal_of(version)} >= {COPIED}, NULL, toInt64({ordinal_of(version)}))"


def order_query(identity: int, table: TableName, records: str, commits: str, *, with_gaps: bool = True) -> str:
    """A query for the ORDER of what {at:String} names; an error where the history of a table does not know it.

    What that is, is as `cdc.tables.places` has it. Commits beyond the checkpoint are none yet: half may be there.

    Args:
        identity: the source's number for the table.
        records, commits: quoted.
        with_gaps: a place in a gap is an error as well.
    """
    record = f"(SELECT toString(any(content)) FROM {records} FINAL WHERE NOT gone AND name ="
    known = f"(SELECT * FROM {commits} FINAL WHERE position_order < behind)"
    committed, now = "toUnixTimestamp64Micro(committed_at)", "toUnixTimestamp64Micro(now64(6))"
    high, low = (
        f"reinterpretAsUInt64(reverse(unhex(leftPad(splitByChar('/', asked)[{half}], 16, '0'))))" for half in (1, 2)
    )
    steps = {
        "behind": f"JSONExtractInt(ifNull({record} 'checkpoint'), ''), 'order')",
        "past": f"ifNull({record} 'past:{identity}'), '')",
        "asked": "trim({at:String})",
        "micros": "multiIf(match(asked, '^@[0-9]{1,18}([.][0-9]{1,6})?$'), "
        "accurateCastOrNull(toDecimal128OrNull(substring(asked, 2), 6) * 1000000, 'Int64'), "
        "match(asked, '^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}.*)?$'), "
        "toUnixTimestamp64Micro(parseDateTime64BestEffortOrNull(asked, 6, 'UTC')), NULL)",
        "lsn": "if(match(asked, '^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$'), "
        f"toInt64({high} * {1 << 32} + {low}), NULL)",
        "exact": f"(SELECT maxOrNullIf(position_order, position = asked) FROM {known})",
        "first": f"(SELECT min(position_order) FROM {known})",
        "later": f"(SELECT ifNull(minOrNullIf(position_order, {committed} > micros "
        f"AND (transaction IS NOT NULL OR position_order = first)), {_NEVER}) FROM {known})",
        "logged": "(SELECT ifNull(maxOrNullIf(position_order, transaction IS NOT NULL AND position_order < later), -1) "
        f"FROM {known})",
        "of_time": "(SELECT maxOrNullIf(position_order, position_order < later AND "
        f"(position_order <= logged OR {committed} <= micros)) FROM {known})",
        "of_lsn": f"(SELECT maxOrNullIf(position_order, position_order < lsn) FROM {known})",
        "newest": f"(SELECT greatest({now}, max({committed})) FROM {known})",
        "found": "ifNull(multiIf(micros IS NOT NULL, of_time, exact IS NOT NULL, exact, of_lsn), -1)",
        "since": "JSONExtractInt(past, 'since')",
        "gaps": "JSONExtract(past, 'unknown', 'Array(Tuple(begins Int64, ends Int64))')",
        "is_position": "micros IS NULL AND exact IS NULL",
    }
    problems = {
        "micros > newest OR is_position AND lsn > behind": "That is in the future.",
        "is_position AND lsn IS NULL": "That is neither a position that this history knows nor a time. Write a time as "
        "2026-01-31 12:00:00+00 (UTC if it names no zone) or @1769860800 (seconds since 1970), a position as the "
        "versions of the table show it (_cdc_valid_from_position).",
        f"since = {NOT_YET}": "This table is still being copied: its history has not begun.",
        "found < since": "That is before this history begins.",
        "arrayExists(gap -> gap.begins <= found AND (gap.ends = -1 OR found < gap.ends), gaps)": "That is where it is "
        f"not known what this table held. The row past:{identity} of {records.replace('`', '')} says why.",
    }
    if not with_gaps:
        problems.popitem()
    number = ", ".join(f"{problem}, {number}" for number, problem in enumerate(problems, 1))
    steps["problem"] = f"multiIf({number}, 0)"
    errors = [
        f"throwIf(problem = {number}, {literal(f'{table}: {text}')})"
        for number, text in enumerate(problems.values(), 1)
    ]
    listed = ", ".join(f"{expression} AS {name}" for name, expression in steps.items())
    return f"WITH {listed} SELECT {' + '.join(['found', *errors])}"
