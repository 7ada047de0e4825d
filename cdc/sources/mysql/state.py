"""What a checkpoint remembers of a MySQL or MariaDB source, as one JSON text with a version number."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import orjson

from cdc.errors import CheckpointUnreadable
from cdc.model.records import read_record
from cdc.model.schema import TableName, TableSchema
from cdc.sources.mysql.defaults import Default
from cdc.sources.mysql.position import LogPlace

VERSION = 1
_PLAIN = ("pipeline", "flavor", "server", "server_id", "place", "mark", "gtids", "next_table", "gone", "prepared")


@dataclass(frozen=True, slots=True)
class TableState:
    """One table as the target holds it.

    Attributes:
        schema: its shape.
        charset: what text columns have that name none; None if a statement has changed that since.
        start: order of the snapshot that it was copied from; what was committed before it is in the copy.
        copied: whether that copy is complete. If not, its changes are not followed until it is.
        next_column: the identity of the next column that comes.
        row_end: the column that ends a row's time in a system-versioned table (B-47); '' if it is the server's own.
        defaults: of columns, as far as they are constants and certain.
    """

    schema: TableSchema
    charset: str | None
    start: int
    copied: bool
    next_column: int
    row_end: str | None = None
    defaults: tuple[Default, ...] = ()


@dataclass(slots=True)
class SourceState:
    """A source as of a checkpoint.

    Attributes:
        pipeline: its name.
        server: the server's own identifier.
        server_id: what this pipeline is to the server, which thinks of it as a replica (B-11).
        place: where the position is in that server's log.
        mark: what tells the file of the place from another of its name (see `dump.log_mark`), as far as known.
        gtids: everything up to the position, empty if the server has no GTIDs.
        tables: by identity.
        next_table: the identity of the next table that comes.
        gone: identities of tables that are not followed any more, by the names under which the target still has them.
        prepared: distributed transactions that are prepared and not yet committed, and where they begin.
    """

    pipeline: str
    flavor: str
    server: str
    server_id: int
    place: LogPlace
    mark: list[int] = field(default_factory=list)
    gtids: str = ""
    tables: dict[int, TableState] = field(default_factory=dict)
    next_table: int = 1
    gone: dict[str, int] = field(default_factory=dict)
    prepared: dict[str, LogPlace] = field(default_factory=dict)
    _written: tuple[dict[int, TableState], orjson.Fragment] | None = field(default=None, compare=False, repr=False)

    def named(self, name: TableName) -> TableState | None:
        """The table of that name, if it is followed."""
        return next((entry for entry in self.tables.values() if entry.schema.table == name), None)

    def forget(self, entry: TableState) -> None:
        """Follow a table no more; should one of its name come, it takes the place of this one."""
        del self.tables[entry.schema.identity]
        self.gone[str(entry.schema.table)] = entry.schema.identity

    def dump(self) -> str:
        """The state as JSON text."""
        if self._written is None or self._written[0] != self.tables:  # most checkpoints change nothing but the position
            tables = orjson.dumps([asdict(table) for table in self.tables.values()])
            self._written = (dict(self.tables), orjson.Fragment(tables))
        plain = {name: getattr(self, name) for name in _PLAIN}
        return orjson.dumps({"version": VERSION, "source": "mysql", **plain, "tables": self._written[1]}).decode()

    @classmethod
    def load(cls, text: str) -> SourceState:
        """Read what `dump` wrote; raises CheckpointUnreadable for anything else (E-10)."""
        try:
            raw = orjson.loads(text)
            version, source = raw.pop("version"), raw.pop("source")
            if source != "mysql" or version != VERSION:
                raise CheckpointUnreadable(
                    f"The target's checkpoint is one of {source!r} in format {version!r}.",
                    hint=f"This is a MySQL or MariaDB source, whose format is {VERSION}: use the source, the target "
                    "and the version of cdc that belong together.",
                )
            tables = read_record(tuple[TableState, ...], raw.pop("tables"))
            state = read_record(cls, raw)
            state.tables = {table.schema.identity: table for table in tables}
            if len(state.tables) != len(tables):
                raise ValueError("two tables of one identity")
            if any(place.offset < 0 or not place.file for place in (state.place, *state.prepared.values())):
                raise ValueError("a place that no log has")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointUnreadable(
                "The target's checkpoint cannot be read: it is damaged or not one of cdc.",
                hint="Restore the target from a backup, or remove it and start again.",
            ) from error
        return state
