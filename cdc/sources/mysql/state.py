"""What a checkpoint remembers of a MySQL or MariaDB source, as one JSON text with a version number."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from cdc.errors import CheckpointUnreadable
from cdc.model.records import named_in_json, read_record, stored
from cdc.model.schema import TableName, TableSchema
from cdc.model.standing import Apart, Standing, State
from cdc.options import KeptOptions
from cdc.sources.mysql.defaults import Default
from cdc.sources.mysql.position import LogPlace

VERSION = 1


@dataclass(frozen=True, slots=True)
class Generated:
    """A column that the server works out of others.

    Attributes:
        column: its identity.
        bases: the identities of the columns that its value depends on, none of which is generated.
    """

    column: int
    bases: tuple[int, ...]


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
        key_index: the index whose columns are the key; '' if there is none, or it is not known.
        hidden: how many columns the server keeps for itself behind those that can be seen (B-46).
        again: it is to be taken in as it is once the log up to now has been followed, and copied by parts; its changes
            are passed over until then, since they cannot be read.
        rekeyed: the same, but what its rows are is certain, so that its changes are followed: it has another key, and
            whether that is the one that the server would choose is not known.
        held: why it cannot be followed just now; its changes are skipped until somebody wants it to be copied again.
        generated: columns of MariaDB, whose log may lack them, as far as it is certain what they depend on.
        computes: it has columns that are worked out of others, or may have.
    """

    schema: TableSchema
    charset: str | None
    start: int
    copied: bool
    next_column: int
    row_end: str | None = None
    defaults: tuple[Default, ...] = ()
    key_index: str = ""
    hidden: int = 0
    again: bool = False
    held: str | None = None
    generated: tuple[Generated, ...] = ()
    rekeyed: bool = False
    computes: bool = True

    @property
    def is_followed(self) -> bool:
        """Whether its changes mean something now."""
        return self.copied and not self.again and self.held is None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be done about it."""
        return self.held is not None or (self.is_followed and not self.rekeyed)


class Tables(dict[int, TableState]):
    """Tables by their identity, which are found by their names as well (P21)."""

    def __init__(self) -> None:
        super().__init__()
        self._named: dict[TableName, int] = {}

    def named(self, name: TableName) -> TableState | None:
        """The table that has a name."""
        identity = self._named.get(name)
        return self[identity] if identity is not None else None

    def __setitem__(self, identity: int, entry: TableState) -> None:
        if identity in self:
            self._forget_name(identity)
        super().__setitem__(identity, entry)
        self._named[entry.schema.table] = identity

    def __delitem__(self, identity: int) -> None:
        self._forget_name(identity)
        super().__delitem__(identity)

    def _forget_name(self, identity: int) -> None:
        name = self[identity].schema.table
        if self._named.get(name) == identity:  # another one may have taken it meanwhile
            del self._named[name]


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
        kept: the shapes of those that it has.
        prepared: distributed transactions that are prepared and not yet committed, and where they begin.
        apart: tables of the selection that were never followed, and why.
        options: the options of the last run that concern the tables; None in a state of an older version.
    """

    pipeline: str
    flavor: str
    server: str
    server_id: int
    place: LogPlace
    mark: list[int] = field(default_factory=list)
    gtids: str = ""
    tables: Tables = field(default_factory=Tables)
    next_table: int = 1
    gone: dict[str, int] = field(default_factory=dict)
    kept: list[TableSchema] = field(default_factory=list)
    prepared: dict[str, LogPlace] = field(default_factory=dict)
    apart: list[Apart] = field(default_factory=list)
    options: KeptOptions | None = field(default=None, metadata=named_in_json("told"))
    _written: tuple[dict[int, TableState], orjson.Fragment] | None = field(default=None, compare=False, repr=False)

    def named(self, name: TableName) -> TableState | None:
        """The table of that name, if it is followed."""
        return self.tables.named(name)

    def forget(self, entry: TableState) -> None:
        """Follow a table no more; should one of its name come, it takes the place of this one."""
        del self.tables[entry.schema.identity]
        self.gone[str(entry.schema.table)] = entry.schema.identity
        if entry.copied:
            self.kept.append(entry.schema)

    def recall(self, name: TableName) -> int | None:
        """The identity of the table that was forgotten last under a name, which another one takes now."""
        identity = self.gone.pop(str(name), None)
        self.kept = [schema for schema in self.kept if schema.identity != identity]
        return identity

    def kept_as(self, name: TableName) -> TableSchema | None:
        """What the target has of a table that was forgotten under a name."""
        identity = self.gone.get(str(name))
        return next((schema for schema in self.kept if schema.identity == identity), None)

    def park(self, kept: TableSchema, parked: TableSchema) -> None:
        """What the target keeps of a table has another name there."""
        self.gone.pop(str(kept.table), None)
        self.gone[str(parked.table)] = parked.identity
        self.kept = [parked if schema is kept else schema for schema in self.kept]

    def dump(self) -> str:
        """The state as JSON text."""
        if self._written is None or self._written[0] != self.tables:  # most checkpoints change nothing but the position
            tables = orjson.dumps(list(self.tables.values()))
            self._written = (dict(self.tables), orjson.Fragment(tables))
        state = {"version": VERSION, "source": "mysql", **stored(self), "tables": self._written[1]}
        return orjson.dumps(state).decode()

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
            state.tables = Tables()
            for table in tables:
                state.tables[table.schema.identity] = table
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


def standings(state: SourceState, *, only_apart: bool = False) -> dict[TableName, Standing]:
    """How the tables of the selection stand as far as the source knows, by name.

    Args:
        only_apart: without those that are simply followed.
    """
    found = {entry.table: entry.standing for entry in list(state.apart)}
    for entry in list(state.tables.values()):
        if entry.held is not None:
            found[entry.schema.table] = Standing(State.HELD, entry.held)
        elif not entry.is_settled:
            found[entry.schema.table] = Standing(State.COPYING)
        elif not only_apart:
            found[entry.schema.table] = Standing(State.FOLLOWING)
    return found
