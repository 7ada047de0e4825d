"""Change events as messages: what a target writes that stores no tables. Encoded by columns, never row by row.

    form = make("json", FormatSettings(pipeline="audit", source="postgresql"))
    shapes = Shapes({})
    for message in form.messages(segment, shapes.new_in(segment)):
        ...

A format takes every segment in order and remembers what goes on in the next one. So a caller that begins again at a
checkpoint makes a new format.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cdc.errors import UsageError
from cdc.formats.chosen import ALL, Chosen
from cdc.formats.encoded import Encoded, Message
from cdc.formats.shapes import Shape, Shapes
from cdc.model.segment import Segment

__all__ = ["ALL", "FORMATS", "Chosen", "Encoded", "Format", "FormatSettings", "Message", "Shape", "Shapes", "make"]

# name -> module and class that encodes it.
FORMATS = {
    "json": "cdc.formats.plain:PlainFormat",
    "debezium": "cdc.formats.debezium:DebeziumFormat",
    "cloudevents": "cdc.formats.cloudevents:CloudEventsFormat",
}


@dataclass(frozen=True, slots=True)
class FormatSettings:
    """The settings of a format.

    Attributes:
        pipeline: its name.
        source: kind of the source: `postgresql`, `mysql`, `mariadb`, `journal`.
        database: the database's name, where the source's tables do not carry it (PostgreSQL).
        schemas: Debezium: describe each message's fields beside its payload.
        tombstones: Debezium: after a delete, a message with the key and no value.
        transactions: Debezium: number the events of each transaction, and emit its begin and end.
        old_keys: where events of one key are read together (Kafka): emit an update to another key under the old one
            as well, just before.
    """

    pipeline: str
    source: str
    database: str = ""
    schemas: bool = False
    tombstones: bool = False
    transactions: bool = False
    old_keys: bool = False


class Format(Protocol):
    """Makes messages of segments."""

    def messages(self, segment: Segment, shapes: Sequence[Shape] = ()) -> Iterator[Message]:
        """The messages of a segment, in commit order across tables, with those that describe some shapes."""

    def encode(self, segment: Segment, chosen: Chosen = ALL, shapes: Sequence[Shape] = ()) -> Encoded:
        """The same as columns; of the changes that are chosen alone."""


def make(name: str, settings: FormatSettings) -> Format:
    """A format by its name, at the begin of its work; raises UsageError for one that there is not."""
    if name not in FORMATS:
        raise UsageError(f"{name!r} is not a format that cdc knows.", hint=f"There are {', '.join(FORMATS)}.")
    module, _, kind = FORMATS[name].partition(":")
    made: Format = getattr(importlib.import_module(module), kind)(settings)
    return made
