"""CloudEvents 1.0 in JSON, structured: the project's own events as their data.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc.formats.chosen import ALL, Chosen
from cdc.formats.encoded import Encoded, Message
from cdc.formats.plain import Event, PlainFormat
from cdc.formats.shapes import Shape
from cdc.formats.text import Piece, joined, literal
from cdc.model.segment import Segment

if TYPE_CHECKING:
    from cdc.formats import FormatSettings

TYPE = "cdc.change."  # and what happened: cdc.change.update


class CloudEventsFormat:
    """One event per change; `source` and `id` together name each of them once."""

    def __init__(self, settings: FormatSettings) -> None:
        place = "/" + "/".join(filter(None, [settings.source, settings.database, settings.pipeline]))
        self._source = literal(place)
        self._plain = PlainFormat(settings, self._wrapped)

    def messages(self, segment: Segment, shapes: Sequence[Shape] = ()) -> Iterator[Message]:
        return self._plain.messages(segment, shapes)

    def encode(self, segment: Segment, chosen: Chosen = ALL, shapes: Sequence[Shape] = ()) -> Encoded:
        return self._plain.encode(segment, chosen, shapes)

    def _wrapped(self, event: Event) -> pa.Array:
        time: tuple[Piece, ...] = (',"time":"', event.committed_at, '"') if event.committed_at is not None else ()
        subject = f',"subject":{literal(str(event.table))}' if event.table is not None else ""
        return joined(
            *(
                '{"specversion":"1.0","id":"',
                event.identity,
                f'","source":{self._source},"type":"{TYPE}',
                event.op,
                '"',
            ),
            *(subject, *time, ',"datacontenttype":"application/json","data":', event.value, "}"),
        )
