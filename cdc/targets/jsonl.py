"""Change events as JSON lines: the plainest form of the audit stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import orjson

from cdc.model.change import ChangeEvent, Op, Transactions, events
from cdc.model.position import Checkpoint
from cdc.model.schema import Kind, TableSchema
from cdc.model.segment import Changes, Segment, Truncate

_INTEGERS = {Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64}
_FLOATS = {Kind.FLOAT32, Kind.FLOAT64}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_IN_JSON = {"NaN", "Infinity", "-Infinity"}

Values = Mapping[str, str | None]


class JsonLinesTarget:
    """Writes each change as one line, in commit order, and remembers for as long as it lives how far it is.

    Booleans, integers and floats are JSON's own; every other value is a string with the source's exact text, so that
    no reader rounds a numeric or shifts a timestamp.
    """

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._checkpoint: Checkpoint | None = None

    def open(self) -> Checkpoint | None:
        return self._checkpoint

    def apply(self, segment: Segment) -> None:
        lines: list[tuple[int, int, bytes]] = []
        for step in segment.steps:
            if isinstance(step, Changes):
                native = _native(step.batch.schema)
                order = zip(step.batch.transaction.tolist(), events(step.batch, segment.transactions), strict=True)
                lines += [(index, event.ordinal, _line(event, native)) for index, event in order]
            elif isinstance(step, Truncate):
                event = _truncate(step, segment.transactions)
                lines.append((step.transaction, step.ordinal, _line(event, {})))
        lines.sort(key=lambda line: line[:2])
        self._output.write(b"".join(line for _, _, line in lines))
        self._output.flush()
        self._checkpoint = segment.checkpoint or self._checkpoint

    def close(self) -> None:
        """Nothing is held."""


def _line(event: ChangeEvent, native: Mapping[str, Callable[[str], object]]) -> bytes:
    def values(row: Values | None) -> dict[str, object] | None:
        if row is None:
            return None
        return {name: native[name](text) if text is not None and name in native else text for name, text in row.items()}

    return orjson.dumps(
        {
            "op": event.op.label,
            "table": str(event.table),
            "key": values(event.key),
            "before": values(event.before),
            "after": values(event.after),
            "unchanged": list(event.unchanged),
            "position": event.position.text,
            "ordinal": event.ordinal,
            "transaction": event.transaction,
            "committed_at": (_EPOCH + timedelta(microseconds=event.committed_at)).isoformat(timespec="microseconds"),
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def _native(schema: TableSchema) -> dict[str, Callable[[str], object]]:
    """How the text of those columns is read that JSON has a type of its own for."""
    readers: dict[str, Callable[[str], object]] = {}
    for column in schema.columns:
        if column.type.kind in _INTEGERS:
            readers[column.name] = int
        elif column.type.kind in _FLOATS:
            readers[column.name] = lambda text: text if text in _NOT_IN_JSON else float(text)
        elif column.type.kind is Kind.BOOL:
            readers[column.name] = lambda text: text == "t"
    return readers


def _truncate(step: Truncate, transactions: Transactions) -> ChangeEvent:
    transaction = transactions[step.transaction]
    return ChangeEvent(
        op=Op.TRUNCATE,
        table=step.schema.table,
        key=None,
        before=None,
        after=None,
        unchanged=(),
        position=transaction.position,
        ordinal=step.ordinal,
        transaction=transaction.identity,
        committed_at=transaction.committed_at,
    )
