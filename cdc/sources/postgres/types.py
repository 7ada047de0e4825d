"""PostgreSQL's types in terms of the model's: what text a column carries, and so how a target may hold it."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.model.schema import Kind, LogicalType

OPAQUE = LogicalType(Kind.OPAQUE)

# The oids of built-in types never change: src/include/catalog/pg_type.dat. A type that is missing here is known to
# travel as text and to stay it: enums, ranges, money, bit strings, network and geometric types, timetz, xml,
# composites, and whatever an extension brings.
_BUILT_IN = {
    16: Kind.BOOL,
    17: Kind.BYTES,
    18: Kind.TEXT,  # "char"
    19: Kind.TEXT,  # name
    20: Kind.INT64,
    21: Kind.INT16,
    23: Kind.INT32,
    25: Kind.TEXT,
    26: Kind.UINT32,  # oid
    28: Kind.UINT32,  # xid
    29: Kind.UINT32,  # cid
    114: Kind.JSON,
    700: Kind.FLOAT32,
    701: Kind.FLOAT64,
    1042: Kind.TEXT,  # char(n), with its padding
    1043: Kind.TEXT,
    1082: Kind.DATE,
    1083: Kind.TIME,
    1114: Kind.TIMESTAMP,
    1184: Kind.TIMESTAMPTZ,
    1186: Kind.INTERVAL,
    1700: Kind.DECIMAL,
    2950: Kind.UUID,
    3802: Kind.JSON,  # jsonb
    5069: Kind.UINT64,  # xid8
}
_INTEGERS = {21: 1, 23: 2, 20: 4}
_VARCHAR, _TEXT, _NUMERIC = 1043, 25, 1700


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """What pg_type says of one type."""

    oid: int
    category: str  # d domain, A true array, or anything else
    element: int
    base: int
    base_modifier: int
    base_dimensions: int
    delimiter: str


def logical_type(types: dict[int, TypeInfo], oid: int, modifier: int, dimensions: int) -> LogicalType:
    """The logical type of a column of the type `oid` with the given typmod and declared array dimensions."""
    info = types.get(oid)
    if info is None:
        return OPAQUE
    if info.category == "d":
        return logical_type(types, info.base, info.base_modifier, info.base_dimensions)
    if info.category == "A":
        element = types.get(info.element)
        if element is None or element.delimiter != ",":  # arrays of box are written with semicolons
            return OPAQUE
        return LogicalType(
            Kind.LIST, element=logical_type(types, info.element, modifier, 0), dimensions=max(1, dimensions)
        )
    kind = _BUILT_IN.get(oid, Kind.OPAQUE)
    if kind is Kind.DECIMAL and modifier >= 0:
        precision = ((modifier - 4) >> 16) & 0xFFFF
        scale = (((modifier - 4) & 0x7FF) ^ 1024) - 1024  # eleven bits, signed since PostgreSQL 15
        return LogicalType(kind, precision=precision, scale=scale)
    return LogicalType(kind)


def keeps_values(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether ALTER TYPE from one (oid, typmod) to another leaves the text of every existing value as it was.

    A USING clause is not visible in the catalog, so that this is what the change does without one (A-49).
    """
    (old_oid, old_modifier), (new_oid, new_modifier) = old, new
    if old == new:
        return True
    if old_oid in _INTEGERS and new_oid in _INTEGERS:
        return _INTEGERS[new_oid] > _INTEGERS[old_oid]
    if old_oid in (_VARCHAR, _TEXT) and new_oid in (_VARCHAR, _TEXT):
        return new_modifier == -1 or (old_modifier != -1 and new_modifier >= old_modifier)
    if old_oid == new_oid == _NUMERIC:
        if new_modifier == -1:
            return True
        same_scale = (old_modifier - 4) & 0x7FF == (new_modifier - 4) & 0x7FF
        return old_modifier != -1 and same_scale and new_modifier > old_modifier
    return False
