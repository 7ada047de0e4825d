"""ClickHouse as a `cdc.tables.versioned.store.Store`: ReplacingMergeTree, whose newest version of a key counts.

The engine's own column for deleted rows is not used: OPTIMIZE ... FINAL CLEANUP forgets those rows, and one that comes
late, or is applied again, would bring the deleted row back (seen with 26.9: 20 of 20).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from cdc.errors import CdcError, InvariantError, UsageError
from cdc.model.schema import Column, TableName, TableSchema
from cdc.tables.engine import Abilities
from cdc.tables.state import SCHEMA
from cdc.tables.table import OURS
from cdc.tables.versioned.shapes import ROWS
from cdc.tables.versioned.store import (
    COPIED,
    DELETED,
    MOMENT,
    OP,
    ORDER,
    ORDINAL,
    POSITION,
    TRANSACTION,
    Alteration,
    Bounds,
    Shown,
)
from cdc.targets.clickhouse.address import Client, Error, Server, connect, meaning
from cdc.targets.clickhouse.blocks import begins_of_places, blocks, versions_of
from cdc.targets.clickhouse.lease import Lease
from cdc.targets.clickhouse.published import COMMITS, freshness_query, names_of, queries_of
from cdc.targets.clickhouse.spelling import LOW, VERSION, literal, order_of, ordinal_of, qualified, quoted
from cdc.targets.clickhouse.types import NARROW, TEXT, WIDE, Limits, home_of
from cdc.typed.native import Home

_FLOOR = "_cdc_floor"  # the constraint by which a table refuses old rows
_EPOCHS = 40  # bits of a number within its lease
_INTERNAL = (SCHEMA, ROWS)  # schemas of ours, which no source may have; the prefix is before these as well


class ClickHouseStore:
    """One server, or one cluster of replicas."""

    product = "ClickHouse"
    abilities = Abilities(sees_case=True, row_id=None)
    failures: tuple[type[Exception], ...] = (Error,)
    text = TEXT

    def __init__(self, server: Server, *, read_only: bool = False) -> None:
        self.place = str(server)
        self.copies = 1
        self._server = server
        self._read_only = read_only
        self._client: Client | None = None
        self._lease = Lease(server, self._name(TableName(SCHEMA, "lease")), lambda: connect(server))
        self._limits = NARROW
        self._numbered = 0
        self.keeps_versions = False

    # --- as a database ----------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The session while the database is open."""
        if self._client is None:
            raise InvariantError(f"{self.place} is not open.")
        return self._client

    def open(self) -> None:
        self._client = connect(self._server)
        try:
            self._limits = self._measured()
            if not self._read_only:
                self._verify_cluster()
                self._prepare()
                self._lease.take(self._client)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """There are no transactions, and none is needed."""

    def commit(self, note: str = "") -> None:
        """Everything is durable already."""

    def rollback(self) -> None:
        """What was appended is appended again."""

    def close(self) -> None:
        if self._client is not None:
            self._lease.release(self._client)
            self._client.close()
            self._client = None

    def meaning(self, failure: Exception) -> CdcError:
        return meaning(failure, self._server)

    def is_taken(self, failure: Exception) -> bool:
        return isinstance(failure, Error) and failure.code == 57  # TABLE_ALREADY_EXISTS

    def columns(self, table: TableName) -> dict[str, str]:
        query = (
            "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String} "
            "ORDER BY position"
        )
        found = {name: _bare(kind) for name, kind in self._ask(query, self._named(table))}
        return {name: kind for name, kind in found.items() if not name.startswith(OURS)}

    def names(self) -> set[TableName]:
        prefix = self._server.prefix
        found = self._ask("SELECT database, name FROM system.tables WHERE NOT is_temporary", {})
        return {TableName(database[len(prefix) :], name) for database, name in found if database.startswith(prefix)}

    def make_room(self, schema: TableSchema) -> None:
        """The server has its own."""

    def before_changes(self, schema: TableSchema) -> None:
        """The server has its own room."""

    def committed(self, *, is_copy: bool) -> None:
        """The server merges by itself."""

    # --- tables -----------------------------------------------------------------------------------------------------

    def keep_versions(self) -> None:
        self.keeps_versions = True
        if not self._read_only:
            self._command(
                f"CREATE TABLE IF NOT EXISTS {self._commits}{self._everywhere()} ({COMMITS}) "
                f"ENGINE = {self._engine('ReplacingMergeTree')} ORDER BY position_order"
            )

    def home(self, column: Column) -> Home:
        return home_of(column.type, self._limits)

    def make(self, place: TableName, columns: Mapping[str, Home], key: Sequence[str], mark: str) -> None:
        self._make_database(place.schema)
        listed = [
            f"{quoted(name)} {home.sql_type if name in key else f'Nullable({home.sql_type})'}"
            for name, home in columns.items()
        ]
        listed += [
            f"{VERSION} UInt128",
            f"{DELETED} Bool",
            f"{POSITION} String",
            f"{MOMENT} DateTime64(6, 'UTC')",
            f"INDEX {VERSION} {VERSION} TYPE minmax",  # the newest rows are found without the others
        ]
        sorted_by, engine = [*map(quoted, key)], f"ReplacingMergeTree({VERSION})"
        if self.keeps_versions:
            listed += [f"{OP} LowCardinality(String)", f"{TRANSACTION} Nullable(Int64)"]
            sorted_by, engine = [*sorted_by, VERSION], "MergeTree"
        self.drop(place)
        self._command(
            f"CREATE TABLE {self._name(place)}{self._everywhere()} ({', '.join(listed)}) "
            f"ENGINE = {self._engine(engine)} ORDER BY ({', '.join(sorted_by)}) "
            f"COMMENT '{mark}'"
        )

    def mark(self, place: TableName) -> str | None:
        query = "SELECT comment FROM system.tables WHERE database = {database:String} AND name = {table:String}"
        return next((comment for (comment,) in self._ask(query, self._named(place))), None)

    def drop(self, place: TableName) -> None:
        self._command(f"DROP TABLE IF EXISTS {self._name(place)}{self._everywhere()} SYNC")

    def exchange(self, place: TableName, other: TableName) -> None:
        one, two = self._name(place), self._name(other)
        if not self.columns(place):
            self._command(f"RENAME TABLE {two} TO {one}{self._everywhere()}")
        else:
            self._command(f"EXCHANGE TABLES {one} AND {two}{self._everywhere()}")

    def alter(self, place: TableName, alteration: Alteration, mark: str) -> bool:
        literals = {name: _literal(alteration.added[name], value) for name, value in alteration.fill.items()}
        if None in literals.values():
            return False
        alter = f"ALTER TABLE {self._name(place)}{self._everywhere()}"
        for name in alteration.dropped:
            self._command(f"{alter} DROP COLUMN IF EXISTS {quoted(name)}")
        for old, new in alteration.renamed.items():
            self._command(f"{alter} RENAME COLUMN IF EXISTS {quoted(old)} TO {quoted(new)}")
        for name, home in alteration.added.items():
            fill = f" DEFAULT {literals[name]}" if name in literals else ""
            self._command(f"{alter} ADD COLUMN IF NOT EXISTS {quoted(name)} Nullable({home.sql_type}){fill}")
        self._command(f"{alter} MODIFY COMMENT '{mark}'")
        return True

    def count_deleted(self, place: TableName, order: int) -> tuple[int, int]:
        ((deleted, count),) = self._ask(
            f"SELECT countIf({DELETED} AND {_below(order)}), count() FROM {self._name(place)}", {}
        )
        return int(deleted), int(count)

    def refuse_older(self, place: TableName, order: int) -> None:
        self._command(
            f"ALTER TABLE {self._name(place)}{self._everywhere()} DROP CONSTRAINT IF EXISTS {_FLOOR}, "
            f"ADD CONSTRAINT {_FLOOR} CHECK NOT {_below(order)}"
        )

    def merge(self, place: TableName) -> None:
        self._command(f"OPTIMIZE TABLE {self._name(place)} FINAL SETTINGS optimize_skip_merged_partitions = 1")

    def hides_older(self, place: TableName, key: Sequence[str], order: int) -> bool:
        name, listed = self._name(place), ", ".join(map(quoted, key))
        deleted = f"SELECT {listed} FROM {name} WHERE {DELETED} AND {_below(order)}"
        hidden = f"NOT {DELETED} AND {_below(order)} AND ({listed}) IN ({deleted})"
        return bool(self._ask(f"SELECT 1 FROM {name} WHERE {hidden} LIMIT 1", {}))

    def remove_deleted(self, place: TableName, order: int) -> None:
        self._command(f"ALTER TABLE {self._name(place)} DELETE WHERE {DELETED} AND {_below(order)}")

    def names_of(self, table: TableName) -> Sequence[TableName]:
        return names_of(table) if self.keeps_versions else [table]

    def show(self, shown: Shown) -> None:
        if self.keeps_versions:
            records = self._name(TableName(SCHEMA, "records"))
            queries = queries_of(shown, self._name(shown.place), records, self._commits)
            for name, query in zip(names_of(shown.name), queries, strict=True):
                self._make_database(name.schema)
                self._command(f"CREATE OR REPLACE VIEW {self._name(name)}{self._everywhere()} AS {query}")
            return
        self._make_database(shown.name.schema)
        listed = [quoted(name) for name in shown.columns]
        where = "" if shown.with_deleted else f" WHERE NOT {DELETED}"
        if shown.with_deleted:
            listed.append(f"if({DELETED}, {MOMENT}, NULL) AS _cdc_deleted_at")
            listed.append(f"if({DELETED}, {POSITION}, NULL) AS _cdc_deleted_position")
        self._command(
            f"CREATE OR REPLACE VIEW {self._name(shown.name)}{self._everywhere()} AS "
            f"SELECT {', '.join(listed)} FROM {self._name(shown.place)} FINAL{where}"
        )

    def hide(self, name: TableName) -> None:
        for each in self.names_of(name):
            self._command(f"DROP VIEW IF EXISTS {self._name(each)}{self._everywhere()} SYNC")

    # --- rows -------------------------------------------------------------------------------------------------------

    def append(self, place: TableName, rows: pa.Table) -> None:
        begins, version = begins_of_places(rows), versions_of(rows)
        rows = rows.drop_columns([ORDER, ORDINAL]).append_column(VERSION, version)
        self._insert(self._name(place), rows, begins)

    def reached(self, place: TableName, order: int) -> tuple[int, int]:
        latest = (
            f"SELECT max({VERSION}) AS latest FROM {self._name(place)} "
            f"WHERE {VERSION} >= toUInt128('{order << 64}') AND bitAnd({VERSION}, {LOW}) < {COPIED}"
        )
        query = f"SELECT {order_of('latest')}, {ordinal_of('latest')} FROM ({latest}) WHERE latest > 0"
        found = self._ask(query, {})
        return (int(found[0][0]), int(found[0][1])) if found else (-1, -1)

    def newest(self, place: TableName, homes: Mapping[str, Home], bounds: Bounds | None = None) -> Iterator[pa.Table]:
        within = ["true"]
        values: dict[str, object] = {}
        for operator, end in ((">=", bounds.low if bounds else None), ("<=", bounds.high if bounds else None)):
            if bounds is not None and end is not None:
                name = "low" if operator == ">=" else "high"
                kind = "Int128" if isinstance(end, int) else "String"
                within.append(f"{quoted(bounds.column)} {operator} {{{name}:{kind}}}")
                values[name] = end
        query = f"SELECT {asked(homes)} FROM {self._newest(place, ' AND '.join(within))} AND NOT {DELETED}"
        return self.stream(query, homes, values)

    def everything(self, place: TableName, homes: Mapping[str, Home]) -> Iterator[pa.Table]:
        final = "" if self.keeps_versions else " FINAL"
        query = f"SELECT {asked(homes)}, {_asked_of_ours(self._ours)} FROM {self._name(place)}{final}"
        return self.stream(query, {**homes, **self._ours}, {})

    def matching(self, place: TableName, homes: Mapping[str, Home], keys: pa.Table) -> pa.Table:
        with self.beside(homes, keys) as among:
            query = f"SELECT {asked(homes)}, {_asked_of_ours(self._ours)} FROM {self._newest(place, among)}"
            found = list(self.stream(query, {**homes, **self._ours}, {}))
        nothing = pa.table({name: pa.array([], home.arrow) for name, home in {**homes, **self._ours}.items()})
        return pa.concat_tables(found) if found else nothing

    @contextmanager
    def beside(self, homes: Mapping[str, Home], keys: pa.Table) -> Iterator[str]:
        """A condition that rows fulfil which have one of some keys; these are in a table meanwhile."""
        names = keys.column_names
        aside = self._name(TableName(SCHEMA, f"keys_{uuid.uuid4().hex}"))
        listed = ", ".join(map(quoted, names))
        columns = ", ".join(f"{quoted(name)} {homes[name].sql_type}" for name in names)
        self._command(f"CREATE TABLE {aside} ({columns}) ENGINE = Memory")
        try:
            self._insert(aside, keys)
            yield f"({listed}) IN (SELECT {listed} FROM {aside})"
        finally:
            self._command(f"DROP TABLE IF EXISTS {aside}")

    def bury(self, place: TableName, columns: Sequence[str], version: pa.Table) -> None:
        (said,) = version.to_pylist()
        number = f"toUInt128('{(said[ORDER] << 64) | said[ORDINAL]}')"
        values = {
            VERSION: number,
            DELETED: "true",
            POSITION: "{position:String}",
            MOMENT: f"fromUnixTimestamp64Micro(toInt64({version.column(MOMENT)[0].value}), 'UTC')",
        }
        if self.keeps_versions:
            values |= {OP: literal(said[OP]), TRANSACTION: "NULL" if (of := said[TRANSACTION]) is None else str(of)}
        name, listed = self._name(place), ", ".join(map(quoted, columns))
        self._command(
            f"INSERT INTO {name} ({listed}, {', '.join(values)}) SELECT {listed}, {', '.join(values.values())} "
            f"FROM {self._newest(place, 'true')} AND NOT {DELETED} AND {VERSION} < {number}",
            {"position": said[POSITION]},
        )

    def add_commits(self, commits: pa.Table) -> None:
        self._insert(
            self._commits, commits.rename_columns(["position_order", "position", "committed_at", "transaction"])
        )

    def last_commit(self) -> int:
        ((last,),) = self._ask(f"SELECT ifNull(maxOrNull(position_order), -1) FROM {self._commits}", {})
        return int(last)

    def _newest(self, place: TableName, within: str) -> str:
        """The newest row of each key, of those that fulfil a condition, which is about keys; more may follow by AND."""
        if not self.keeps_versions:
            return f"{self._name(place)} FINAL WHERE {within}"
        query = "SELECT sorting_key FROM system.tables WHERE database = {database:String} AND name = {table:String}"
        ((sorted_by,),) = self._ask(query, self._named(place))
        key = sorted_by.removesuffix(f", {VERSION}")
        return (
            f"(SELECT * FROM {self._name(place)} WHERE {within} ORDER BY {key}, {VERSION} DESC LIMIT 1 BY {key}) "
            "WHERE true"
        )

    @property
    def _ours(self) -> dict[str, Home]:
        return {**_OURS, **_OURS_OF_VERSIONS} if self.keeps_versions else _OURS

    @property
    def _commits(self) -> str:
        return self._name(TableName(SCHEMA, "commits"))

    # --- records ----------------------------------------------------------------------------------------------------

    def number(self) -> int:
        self._numbered += 1
        return (self._lease.epoch << _EPOCHS) | self._numbered

    def records(self) -> dict[str, str]:
        place = TableName(SCHEMA, "records")
        if not self.columns(place):
            return {}
        found = self._ask(f"SELECT name, content FROM {self._name(place)} FINAL WHERE NOT gone", {})
        return dict(found)

    def record(self, records: Mapping[str, str | None]) -> None:
        self._lease.verify(self.client)
        rows = pa.table(
            {
                "name": list(records),
                "content": [content or "" for content in records.values()],
                "gone": [content is None for content in records.values()],
                "number": pa.array([self.number()] * len(records), pa.uint64()),
            }
        )
        self._insert(self._name(TableName(SCHEMA, "records")), rows)

    def forget(self) -> None:
        """Remove what a pipeline keeps beside its tables; what people read stays."""
        self._command(f"DROP DATABASE IF EXISTS {quoted(self._server.prefix + SCHEMA)}{self._everywhere()} SYNC")

    # --- statements -------------------------------------------------------------------------------------------------

    def _verify_cluster(self) -> None:
        """Raise UsageError for a cluster in which not every replica would have all rows."""
        if not (name := self._server.cluster):
            return
        query = "SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = {cluster:String}"
        ((shards,),) = self._ask(query, {"cluster": name})
        if not shards:
            raise UsageError(
                f"{self.place}: the server knows no cluster {name}.",
                hint="SELECT cluster FROM system.clusters says which ones it knows.",
            )
        if shards > 1:
            raise UsageError(
                f"{self.place}: the cluster {name} has {shards} shards, and each would have its own rows.",
                hint="Name a cluster that has one shard, with all of its replicas.",
            )

    def _prepare(self) -> None:
        self._make_database(SCHEMA)
        create = "CREATE TABLE IF NOT EXISTS"
        lease, records = (self._name(TableName(SCHEMA, name)) for name in ("lease", "records"))
        self._command(
            f"{create} {lease}{self._everywhere()} (epoch UInt32, owner String, host String, process UInt32, "
            f"released Bool, seen DateTime64(3, 'UTC')) "
            f"ENGINE = {self._engine('ReplacingMergeTree(seen)')} ORDER BY (epoch, owner)"
        )
        self._command(
            f"{create} {records}{self._everywhere()} (name String, content String, gone Bool, number UInt64) "
            f"ENGINE = {self._engine('ReplacingMergeTree(number)')} ORDER BY name"
        )
        freshness = self._name(TableName(SCHEMA, "freshness"))
        self._command(f"CREATE VIEW IF NOT EXISTS {freshness}{self._everywhere()} AS {freshness_query(records)}")

    def _measured(self) -> Limits:
        """Old versions clamp what is beyond, without a word."""
        query = (
            "SELECT toString(CAST(toInt32(2932896) AS Date32)), "
            "toString(fromUnixTimestamp64Micro(toInt64(-62135596800000000), 'UTC'))"
        )
        return WIDE if self._ask(query, {}) == [(WIDE.days[1], f"{WIDE.moments[0]}.000000")] else NARROW

    def _make_database(self, schema: str) -> None:
        name = quoted(self._server.prefix + schema)
        self._command(f"CREATE DATABASE IF NOT EXISTS {name}{self._everywhere()}")

    def _engine(self, name: str) -> str:
        return f"Replicated{name}" if self._server.cluster else name

    def _everywhere(self) -> str:
        return f" ON CLUSTER {quoted(self._server.cluster)}" if self._server.cluster else ""

    def _name(self, table: TableName) -> str:
        return qualified(self._server.prefix, table)

    def _named(self, table: TableName) -> dict[str, object]:
        return {"database": self._server.prefix + table.schema, "table": table.name}

    def _command(self, statement: str, values: dict[str, object] | None = None) -> None:
        self.client.command(statement, parameters=values)

    def _ask(self, query: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.client.query(query, parameters=values).result_rows]

    def stream(self, query: str, homes: Mapping[str, Home], values: dict[str, object]) -> Iterator[pa.Table]:
        """The answer to a query for the columns of some homes (see `asked`), a block at a time."""
        with self.client.query_arrow_stream(query, parameters=values, use_strings=False) as batches:
            for batch in batches:
                found = pa.table(batch) if not isinstance(batch, pa.Table) else batch
                columns = [found.column(name).cast(home.arrow) for name, home in homes.items()]
                yield pa.table(columns, names=list(homes))

    def _insert(self, table: str, rows: pa.Table, begins: np.ndarray | None = None) -> None:
        """In pieces, each of which is one block, which is there as a whole or not at all.

        Args:
            begins: int64[k], the rows with which a piece may begin; None for all of them.
        """
        for block in blocks(rows, begins):
            self.client.insert_arrow(table, block)


_OURS = {
    ORDER: Home("Int64", TEXT.codec, pa.int64()),
    ORDINAL: Home("UInt64", TEXT.codec, pa.uint64()),
    DELETED: Home("Bool", TEXT.codec, pa.bool_()),
    POSITION: TEXT,
    MOMENT: Home("DateTime64(6, 'UTC')", TEXT.codec, pa.timestamp("us", "UTC")),
}


_OURS_OF_VERSIONS = {OP: TEXT, TRANSACTION: Home("Int64", TEXT.codec, pa.int64())}


def _asked_of_ours(ours: Mapping[str, Home]) -> str:
    parts = {ORDER: order_of(VERSION), ORDINAL: ordinal_of(VERSION)}
    return ", ".join(f"{parts[name]} AS {name}" if name in parts else name for name in ours)


def _below(order: int) -> str:
    return f"({VERSION} < toUInt128('{order << 64}'))"


def _bare(kind: str) -> str:
    return kind[len("Nullable(") : -1] if kind.startswith("Nullable(") else kind


def asked(homes: Mapping[str, Home]) -> str:
    """The columns that are asked for; what is fed as text is answered as text."""
    return ", ".join(
        f"toString({quoted(name)}) AS {quoted(name)}" if _is_rendered(home) else quoted(name)
        for name, home in homes.items()
    )


def _is_rendered(home: Home) -> bool:
    return home.arrow == TEXT.arrow and not home.is_text


def _literal(home: Home, value: str) -> str | None:
    """A value that the server keeps exactly; None where that is not certain."""
    if pa.types.is_integer(home.arrow):
        return value
    if home.is_text:
        return literal(value)
    return None
