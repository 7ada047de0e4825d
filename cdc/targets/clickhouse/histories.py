"""Reading histories: versions of a row, a table as it was, what differs. A pipeline may write meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pyarrow as pa

from cdc.errors import InvariantError, UsageError
from cdc.model.moment import HOW_TO_WRITE, Moment, written
from cdc.model.schema import TableName
from cdc.tables.answers import Event, Known, Place, Row, events, named, not_known, plain, unknown
from cdc.tables.failures import mapped_errors
from cdc.tables.gaps import GapInHistory
from cdc.tables.published import BEGIN, END, versions_view
from cdc.tables.state import SCHEMA
from cdc.tables.versioned.control import opened
from cdc.tables.versioned.shapes import Shapes, place_of
from cdc.tables.versioned.state import Shape, Unknown, VersionedState, mode_of
from cdc.tables.versioned.store import Shown
from cdc.target import Mode
from cdc.targets.clickhouse.address import Error, Server
from cdc.targets.clickhouse.published import order_query, rows_at
from cdc.targets.clickhouse.spelling import VERSION, begin_of, qualified, quoted
from cdc.targets.clickhouse.store import ClickHouseStore, asked
from cdc.targets.clickhouse.types import TEXT, UTC
from cdc.typed.native import Converter, Home

_THROWN = 395  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
_NUMBER, _MOMENT = Home("Int64", TEXT.codec, pa.int64()), Home("DateTime64(6, 'UTC')", TEXT.codec, UTC)
_KINDS = {"BIGINT": _NUMBER, "VARCHAR": TEXT, "TIMESTAMP WITH TIME ZONE": _MOMENT}
_STAMPS = {name: _KINDS[kind] for name, kind in (BEGIN | END).items()}


class Histories:
    """The histories of the databases of one prefix."""

    def __init__(self, store: ClickHouseStore, server: Server, converter: Converter) -> None:
        self._store = store
        self._server = server
        self._converter = converter
        self._state = VersionedState(store)
        self._state.open()
        self._shapes = Shapes(store, self._state, converter, with_deleted=False)
        self._commits, self._records = (
            qualified(server.prefix, TableName(SCHEMA, name)) for name in ("commits", "records")
        )

    def table(self, name: str) -> Known:
        """Find a table by `schema.table`, or by its name alone if there is one of that name.

        Raises:
            UsageError: no table has that name, or several have.
        """
        found = []
        for table, identity in sorted(self._state.names().items(), key=str):
            schema = self._shape(identity).schema
            found.append(Known(identity, table, tuple(schema.columns[index].name for index in schema.key)))
        return named(name, found, str(self._server))

    def place(self, known: Known, at: str) -> Place:
        """Where a position or a time is in the history of a table.

        Raises:
            UsageError: it is neither, or not a moment of this history.
            NotKnown: it is in a gap of it.
        """
        moment = Moment.parse(at)
        query = order_query(known.identity, known.table, self._records, self._commits, with_gaps=False)
        try:
            ((order,),) = self._store.client.query(query, parameters={"at": str(moment)}).result_rows
        except Error as error:
            if error.code != _THROWN:
                raise self._store.meaning(error) from error
            said = str(error).partition("DB::Exception: ")[2].partition(": while executing")[0]
            raise UsageError(said, hint=HOW_TO_WRITE) from error
        for gap in self._gaps(known):
            if gap.begins <= order and (gap.ends is None or order < gap.ends):
                raise not_known(str(self._server), known, moment, gap)
        here = self._commit(f"position_order <= {order} ORDER BY position_order DESC")
        ahead = self._commit(f"position_order > {order} AND committed_at > now64(6) ORDER BY position_order")
        later = ", ".join(ahead) if ahead is not None and moment.time is not None else None
        return Place(order, str(moment), ", ".join(here or ("unknown",)), later)

    def versions(self, known: Known, key: Sequence[str]) -> list[Event]:
        """What happened to the rows that have had a key, one event after the other."""
        known.refuse_key(key)
        shape = self._shape(known.identity)
        homes = self._homes(shape)
        types = {column.name: column.type for column in shape.schema.columns}
        given = {name: pa.array([text], pa.string_view()) for name, text in zip(known.key, key, strict=True)}
        keys, wrong = self._converter.native({name: homes[name] for name in known.key}, types, given)
        if wrong:
            return []
        view = qualified(self._server.prefix, versions_view(known.table))
        with mapped_errors(self._store), self._store.beside(homes, keys) as among:
            query = (
                f"SELECT {asked({**homes, **_STAMPS})} FROM {view} WHERE {among} "
                "ORDER BY _cdc_valid_from, _cdc_ordinal NULLS LAST, _cdc_valid_to NULLS LAST"
            )
            blocks = list(self._store.stream(query, {**homes, **_STAMPS}, {}))
        rows = [row for block in blocks for row in self._rows(homes, block)]
        stamps = [row for block in blocks for row in self._rows(_STAMPS, block)]
        entries = list(events(rows, stamps))
        if entries:
            entries += [(gap.begins, unknown(gap)) for gap in self._gaps(known)]
        return [event for _, event in sorted(entries, key=lambda entry: entry[0])]

    def as_of(self, known: Known, place: Place) -> tuple[list[str], Iterator[Row]]:
        """The names of a table's columns, and its rows as they were."""
        columns = [column.name for column in self._shape(known.identity).schema.columns]
        return columns, self._rows_at(known, place)

    def diff(self, known: Known, before: Place, after: Place) -> Iterator[tuple[Row | None, Row | None]]:
        """Rows that differ between two places, as they were at each; None where there was none."""
        first, last = sorted((before.order, after.order))
        listed = ", ".join(map(quoted, known.key))
        between = f"{VERSION} >= {begin_of(str(first + 1))} AND {VERSION} < {begin_of(str(last + 1))}"
        rows = qualified(self._server.prefix, place_of(known.identity))
        changed = f"({listed}) IN (SELECT {listed} FROM {rows} WHERE {between})"
        then, now = (
            {tuple(row[name] for name in known.key): row for row in self._rows_at(known, place, changed)}
            for place in (before, after)
        )
        for key in sorted(then.keys() | now.keys()):
            if then.get(key) != now.get(key):
                yield then.get(key), now.get(key)

    def _rows_at(self, known: Known, place: Place, condition: str = "true") -> Iterator[Row]:
        shape = self._shape(known.identity)
        homes, rows = self._homes(shape), place_of(known.identity)
        shown = Shown(known.identity, known.table, rows, list(homes), known.key, with_deleted=False)
        condition = f"{VERSION} < {begin_of(str(place.order + 1))} AND {condition}"
        query = (
            f"SELECT {asked(homes)} FROM ({rows_at(shown, qualified(self._server.prefix, rows), condition)}) "
            f"ORDER BY {', '.join(map(quoted, known.key))}"
        )
        with mapped_errors(self._store):
            for block in self._store.stream(query, homes, {}):
                yield from self._rows(homes, block)

    def _rows(self, homes: dict[str, Home], block: pa.Table) -> Iterator[Row]:
        """Numbers and booleans as such, everything else as the source's text."""
        as_text = {name: home for name, home in homes.items() if not _is_number(home) and home is not _MOMENT}
        texts = self._converter.texts(as_text, block) if as_text else block
        columns = []
        for name, home in homes.items():
            if home is _MOMENT:
                micros = block.column(name).cast(pa.int64()).to_pylist()
                columns.append([written(each) if each is not None else None for each in micros])
            else:
                columns.append((texts if name in as_text else block).column(name).to_pylist())
        return (plain(list(homes), row) for row in zip(*columns, strict=True))

    def _shape(self, identity: int) -> Shape:
        shape = self._state.shape(identity)
        if shape is None:
            raise InvariantError(f"The table {identity} has a name, and no shape.")
        return shape

    def _homes(self, shape: Shape) -> dict[str, Home]:
        names = [column.name for column in shape.schema.columns]
        return dict(zip(names, self._shapes.homes(shape.schema, shape.texts), strict=True))

    def _gaps(self, known: Known) -> list[GapInHistory]:
        past = self._state.pasts().get(known.identity)
        return [self._described(gap) for gap in past.unknown] if past is not None else []

    def _described(self, gap: Unknown) -> GapInHistory:
        ends = gap.ends if gap.ends >= 0 else None
        before = self._commit(f"position_order < {gap.begins} ORDER BY position_order DESC")
        first = self._commit(f"position_order >= {gap.begins} ORDER BY position_order")
        after = self._commit(f"position_order >= {ends} ORDER BY position_order") if ends is not None else None
        known, when = after if after is not None else (None, None)
        return GapInHistory(gap.begins, ends, first, before[0] if before else None, known, when, gap.reason)

    def _commit(self, which: str) -> tuple[str, str] | None:
        """A commit as people read it: its position and its own time."""
        said = "position, toUnixTimestamp64Micro(committed_at)"
        query = f"SELECT {said} FROM {self._commits} FINAL WHERE {which} LIMIT 1"
        found = self._store.client.query(query).result_rows
        return (str(found[0][0]), written(int(found[0][1]))) if found else None


@contextmanager
def open_histories(place: str) -> Iterator[Histories]:
    """The histories of a server; raises UsageError if there are none."""
    server = Server.parse(place)
    with opened(ClickHouseStore(server, read_only=True)) as store, closing(Converter()) as converter:
        if mode_of(store.records()) is not Mode.HISTORY:
            raise UsageError(f"{server} has no history.", hint="`cdc run ... --mode history` keeps one, from then on.")
        store.keep_versions()
        yield Histories(store, server, converter)


def _is_number(home: Home) -> bool:
    kind = home.arrow
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
