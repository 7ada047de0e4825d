"""Records from JSON: a dataclass out of what `dataclasses.asdict` or `stored` made of it, held against its annotations.

A field has its own name in JSON, unless `named_in_json` gives it another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
_NAME = "name in JSON"


def named_in_json(name: str) -> dict[str, str]:
    """The metadata of a field that has another name in JSON: an earlier one, which other versions of cdc read."""
    return {_NAME: name}


def stored(record: Any) -> dict[str, Any]:
    """The public fields of a dataclass by their names in JSON. The values are its own, not copies."""
    return {_name(field): getattr(record, field.name) for field in _public(record.__class__)}


def read_record(kind: type[T], raw: Any) -> T:
    """A value of a type: a dataclass, an enum, a text, a number, or a tuple, list, dict or union of such.

    JSON has text keys only, so that those of a `dict[int, ...]` are texts that hold numbers.

    Raises:
        ValueError: it is not one.
    """
    found: T = _read(kind, raw)
    return found


def _read(kind: Any, raw: Any) -> Any:
    if is_dataclass(kind):
        return _dataclass(kind, raw)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _union(arguments, raw)
    if origin in (list, tuple) and isinstance(raw, list):
        return origin(_read(arguments[0], item) for item in raw)
    if origin is dict and isinstance(raw, dict):
        return {_key(arguments[0], key): _read(arguments[1], value) for key, value in raw.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(raw)
    if type(raw) is not kind:
        raise ValueError(f"{kind} is not {type(raw)}")
    return raw


def _dataclass(kind: Any, raw: Any) -> Any:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{kind} is not {type(raw)}")
    known, required = _fields(kind)
    if not required <= set(raw) <= set(known):
        raise ValueError(f"{kind} has other fields")
    return kind(**{known[name][0]: _read(known[name][1], value) for name, value in raw.items()})


@cache
def _fields(kind: Any) -> tuple[dict[str, tuple[str, Any]], set[str]]:
    """The public fields of a dataclass by their names in JSON, with their types; and those without a default."""
    hints = get_type_hints(kind)
    required = {_name(f) for f in _public(kind) if f.default is MISSING and f.default_factory is MISSING}
    return {_name(field): (field.name, hints[field.name]) for field in _public(kind)}, required


@cache
def _public(kind: Any) -> tuple[Field[Any], ...]:
    return tuple(field for field in fields(kind) if not field.name.startswith("_"))


def _name(field: Field[Any]) -> str:
    return str(field.metadata.get(_NAME, field.name))


def _union(kinds: tuple[Any, ...], raw: Any) -> Any:
    if raw is None and NoneType in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    return _read(kind, raw)


def _key(kind: Any, text: str) -> Any:
    return text if kind is str else int(text)
