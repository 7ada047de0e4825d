"""How values live in a lake: as DuckDB holds them, but for what Parquet has no place for."""

from __future__ import annotations

from cdc.model.schema import Kind, LogicalType
from cdc.typed import codecs
from cdc.typed.codec import Codec


def codec_for(kind: LogicalType) -> Codec:
    """The codec that a column begins with. Parquet's intervals are months, days and milliseconds without a sign: DuckDB
    refuses negative ones ("Parquet files do not support negative intervals") and cuts microseconds off."""
    return codecs.TEXT_CODEC if kind.kind is Kind.INTERVAL else codecs.codec_for(kind)
