"""The texts and hashes that the digest of a row consists of (`cdc.model.parts.Digest`), in DuckDB's words."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp, parse_one

from cdc.model.parts import BUCKETS
from cdc.model.schema import Column, Kind
from cdc.typed.codec import Codec
from cdc.typed.codecs import codec_for
from cdc.typed.fitting import DIALECT


class DuckDbDigests:
    """What `cdc.tables.engine.Digesting` asks for, but for the questions."""

    def digest_text(self, column: Column, codec: Codec) -> exp.Expression:
        """The source's text, or its bits as a double for a float: two servers may write another text for one."""
        value: exp.Expression = exp.column(exp.to_identifier(column.name, quoted=True))
        kind = column.type.kind
        if codec.is_text and kind in (Kind.FLOAT32, Kind.FLOAT64, Kind.VECTOR):
            value = codec_for(column.type).careful(value)
        if kind in (Kind.FLOAT32, Kind.FLOAT64):
            bits = _cast(_cast(_cast(value, "DOUBLE"), "BIT"), "VARCHAR")
            return exp.Case().when(exp.func("isnan", value), exp.Literal.string("NaN")).else_(bits)
        if kind is Kind.VECTOR:
            return _little_endian_hex(value)
        return codec.render(value)

    def byte_length(self, text: exp.Expression) -> exp.Expression:
        return exp.Anonymous(this="strlen", expressions=[text])

    def concatenated(self, texts: Sequence[exp.Expression]) -> exp.Expression:
        return exp.Anonymous(this="concat", expressions=list(texts))

    def hashed(self, text: exp.Expression, digits: int) -> exp.Expression:
        digest = exp.Anonymous(this="sha256", expressions=[text])
        first = exp.Anonymous(this="left", expressions=[digest, exp.convert(digits)])
        return _cast(self.concatenated([exp.Literal.string("0x"), first]), "UBIGINT")

    def bucket(self, hashed: exp.Expression) -> exp.Expression:
        return exp.BitwiseAnd(this=hashed, expression=_cast(exp.Literal.number(BUCKETS - 1), "UBIGINT"))

    def total(self, hashed: exp.Expression) -> exp.Expression:
        return _cast(exp.Sum(this=_cast(hashed, "HUGEINT")), "VARCHAR")


def _cast(value: exp.Expression, kind: str) -> exp.Expression:
    return exp.cast(value, kind, copy=False, dialect=DIALECT)


def _little_endian_hex(floats: exp.Expression) -> exp.Expression:
    """The bytes of a list of 32-bit floats, as little-endian machines have them."""
    template = parse_one(
        "array_to_string(list_transform(list_transform(floats_, lambda e: hex(CAST(CAST(e AS BIT) AS BLOB))), "
        "lambda h: concat(substr(h, 7, 2), substr(h, 5, 2), substr(h, 3, 2), substr(h, 1, 2))), '')",
        dialect=DIALECT,
    )
    filled = template.transform(
        lambda node: floats.copy() if isinstance(node, exp.Column) and node.name == "floats_" else node
    )
    assert isinstance(filled, exp.Expression)
    return filled
