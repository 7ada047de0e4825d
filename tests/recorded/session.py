"""A recorded session: what a real server sent, what it was asked about its tables, and what they held in the end."""

from __future__ import annotations

import base64
import gzip
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

FOLDER = Path(__file__).parent
Table = tuple[list[str], list[list[str | None]]]  # names of columns, and rows in the order of their values


@dataclass(frozen=True)
class Session:
    """What a server sent, and what its own tables said.

    Attributes:
        server: which it was, with its version.
        state: a checkpoint's state from before the first message, in which all tables are copied, and empty.
        pieces: CopyData messages of PostgreSQL; of a binlog dump the bytes as they came.
        later: a state in which the tables are as the catalog knew them in the end.
        missing: what rows have that are older than one of PostgreSQL's columns, by table and number of the column.
        tables: by name, as text from the server's own output functions.
    """

    server: str
    state: str
    pieces: list[bytes]
    later: str
    missing: dict[str, dict[str, str]]
    tables: dict[str, Table]

    @classmethod
    def load(cls, name: str) -> Session:
        raw = orjson.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
        raw["pieces"] = [base64.b64decode(piece) for piece in raw["pieces"]]
        raw["tables"] = {name: (columns, rows) for name, (columns, rows) in raw["tables"].items()}
        return cls(**raw)

    def save(self, name: str) -> int:
        """Write it; how many bytes it takes."""
        raw = asdict(self) | {"pieces": [base64.b64encode(piece).decode() for piece in self.pieces]}
        return (FOLDER / f"{name}.json.gz").write_bytes(gzip.compress(orjson.dumps(raw), mtime=0))


def ordered(rows: list[list[str | None]]) -> list[list[str | None]]:
    """Rows in an order of their own."""
    return sorted(rows, key=lambda row: [(value is not None, value or "") for value in row])
