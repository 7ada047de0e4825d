"""A lake as a `cdc.tables.engine.Engine`: DuckDB's statements, on tables that are Parquet files and a catalogue."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
from sqlglot import exp

from cdc.errors import CdcError, OperatorNeeded, TargetBusy, TargetDrift, TargetGone, Unavailable, UsageError
from cdc.files.disk import meaning_of
from cdc.files.durable import DurableTree, make_folder
from cdc.files.inode import Inode
from cdc.model.schema import Column, TableName, TableSchema
from cdc.tables import sql
from cdc.tables.engine import Input
from cdc.tables.names import CATALOG
from cdc.tables.table import TargetTable
from cdc.targets.duckdb.connection import classify
from cdc.targets.duckdb.engine import DuckDbEngine
from cdc.targets.ducklake.address import Lake, lake_path
from cdc.targets.ducklake.codecs import codec_for
from cdc.targets.ducklake.lease import lease_of
from cdc.typed.codec import Codec

_PLAIN = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
_RETYPED = "_cdc_retyped"
_REFUSED = re.compile(r"http code (401|403|404)")
_UNREACHED = "error for http"
# That a commit puts into the catalogue and not into a file of its own, until the upkeep does. It puts none into a
# DuckDB file: DuckLake writes values there as literals, which DuckDB 1.5.5 reads as decimals. One double of 30, and one
# real of 200, came back as another number.
_INLINED_ROWS = 1000
_UPKEEP_EVERY = 60.0  # seconds


class DuckLakeEngine(DuckDbEngine):
    """One lake. DuckLake takes any number of writers, of which their conflicts make errors; the lease lets in one.

    Args:
        memory: bytes of buffers.
    """

    product = "DuckLake"

    def __init__(self, lake: Lake, memory: int, *, read_only: bool = False) -> None:
        super().__init__(lake_path(lake), memory, read_only=read_only)
        self.place = self.address = lake.address
        self._lake = lake
        self._lease = lease_of(lake)
        self._upkeep_at = 0.0
        self._in_transaction = False
        self._places: list[Inode] = []
        self._files: DurableTree | None = None

    def open(self) -> None:
        if not self._read_only:
            self._lease.take()
        try:
            if not self._read_only and self._lake.has_local_data:
                self._open_folder(Path(self._lake.data))
            self.connection = open_lake(self._lake, self._memory, read_only=self._read_only)
            if self._lake.file is not None:
                self._places.append(Inode.at(self._lake.file))
        except BaseException:
            self._lease.release()
            raise
        self._upkeep_at = time.monotonic() + _UPKEEP_EVERY

    def _open_folder(self, folder: Path) -> None:
        make_folder(folder)
        self._places.append(Inode.at(folder))
        self._files = DurableTree(folder)

    def verify_place(self) -> None:
        """Make sure that the names of a lake that is on this machine still lead to it; raises TargetGone."""
        for place in self._places:
            place.verify()

    def run(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> int:
        """One that is run outside of a transaction is one of its own, with durable files."""
        if self._in_transaction:
            return super().run(statement, values)
        self.begin()
        try:
            changed = super().run(statement, values)
            self.commit()
        except BaseException:
            with suppress(*self.failures):  # a commit that failed has rolled back by itself
                self.rollback()
            raise
        return changed

    def begin(self) -> None:
        super().begin()
        self._in_transaction = True

    def rollback(self) -> None:
        self._in_transaction = False
        super().rollback()

    def commit(self, note: str = "") -> None:
        """Each snapshot says up to where in the source's log it is.

        DuckLake makes a folder again that was taken away, with nothing in it but what is new.
        """
        self._in_transaction = False
        self._lease.verify()
        self.verify_place()
        if note:
            self.connection.execute(f"CALL {CATALOG}.set_commit_message('cdc', ?)", [note])
        self._sync_files()
        self.connection.execute("COMMIT")
        self._names.sync()

    def _sync_files(self) -> None:
        """DuckDB writes the files of a transaction before its commit, and does not wait until the disk has them. A loss
        of power would take rows that the catalogue has, with a checkpoint behind them."""
        if self._files is not None:
            self._files.sync()

    def close(self) -> None:
        self.connection.close()
        self._lease.release()

    def meaning(self, failure: Exception) -> CdcError:
        try:
            self.verify_place()
        except TargetGone as gone:  # which SQLite notices, and calls it something else
            return gone
        return meaning(failure, self._lake)

    def codec(self, column: Column) -> Codec:
        return codec_for(column.type)

    @contextmanager
    def visible(self, rows: Input, table: TargetTable | None = None) -> Iterator[None]:
        """DuckDB 1.5 has Arrow filter the rows that a join does not need, and Arrow filters no views: `Function
        'array_filter' has no kernel matching input types (string_view, bool)`."""
        plain = {name: array.cast(_PLAIN.get(array.type, array.type)) for name, array in rows.data.items()}
        with super().visible(Input(rows.columns, plain), table):
            yield

    def retype(
        self, table: TableName, column: str, codec: Codec, using: exp.Expression, views: Sequence[TableName]
    ) -> None:
        """DuckLake changes a type only into a wider one of its kind: another column takes the place of this one."""
        self.run(sql.add_column(table, _RETYPED, codec.type))
        self.run(sql.fill_column(table, _RETYPED, using, None))
        self.run(sql.drop_column(table, column))
        self.run(sql.rename_column(table, _RETYPED, column))

    # --- upkeep: DuckDB lets go of memory by itself, since it holds no rows of a lake --------------------------------

    def make_room(self, schema: TableSchema) -> None:
        pass

    def before_changes(self, schema: TableSchema) -> None:
        pass

    def committed(self, *, is_copy: bool) -> None:
        """Small files become larger ones, and what nobody is to read any more goes: 60 s of small commits left 491
        files. Between two segments, since two writers at once would be in each other's way.

        A file with deleted rows is not put together with others. It is written again when half of its rows are gone,
        which costs no more than they did.
        """
        if time.monotonic() < self._upkeep_at:
            return
        catalogue = CATALOG
        for work in (
            f"ducklake_flush_inlined_data('{catalogue}')",
            f"ducklake_rewrite_data_files('{catalogue}', delete_threshold => 0.5)",
            f"ducklake_merge_adjacent_files('{catalogue}')",
        ):
            self.begin()
            self.connection.execute(f"CALL {work}")
            self.commit()
        seconds = int(self._lake.keep * 86400)
        before = f"now() - INTERVAL {seconds} SECONDS"
        self.connection.execute(f"CALL ducklake_expire_snapshots('{catalogue}', older_than => {before})")
        self.connection.execute(f"CALL ducklake_cleanup_old_files('{catalogue}', older_than => {before})")
        self._upkeep_at = time.monotonic() + _UPKEEP_EVERY


def open_lake(lake: Lake, memory: int, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Open (or make) a lake, with values read and written in UTC.

    Raises:
        TargetBusy: another process has a catalogue open that is a DuckDB file.
        UsageError: an extension is missing, or the folder of the catalogue.
    """
    if lake.file is not None and not lake.file.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {lake.file.parent}.", hint="Make it, or name a catalogue in another one.")
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory >> 20}MB",
        "temp_directory": lake.spill,
    }
    connection = duckdb.connect(":memory:", config=settings)
    try:
        for extension in _extensions(lake):
            _load(connection, extension)
        if not lake.has_local_data:
            _be_let_in(connection, lake)
        inlined = 0 if lake.is_duckdb else _INLINED_ROWS
        attached = [f"DATA_PATH '{_quoted(lake.data)}'", f"DATA_INLINING_ROW_LIMIT {inlined}"]
        attached += ["READ_ONLY"] if read_only else []
        name = _quoted(f"ducklake:{lake.catalogue}")
        connection.execute(f"ATTACH '{name}' AS {CATALOG} ({', '.join(attached)})")
        connection.execute(f"USE {CATALOG}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
    except duckdb.Error as error:
        connection.close()
        raise meaning(error, lake) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _extensions(lake: Lake) -> list[str]:
    found = ["ducklake"]
    if lake.is_sqlite:
        found.append("sqlite_scanner")
    if lake.file is None:
        found.append("postgres_scanner")
    if not lake.has_local_data:
        found.append("httpfs")
    return found


def _load(connection: duckdb.DuckDBPyConnection, extension: str) -> None:
    try:
        connection.execute(f"LOAD {extension}")
    except duckdb.Error:
        try:
            connection.execute(f"INSTALL {extension}")
            connection.execute(f"LOAD {extension}")
        except duckdb.Error as error:
            install = f"import duckdb; duckdb.sql('INSTALL {extension}')"
            raise UsageError(
                f"DuckDB {duckdb.__version__} has no extension {extension} here, and could not get it.",
                hint=f'Run once where there is a network: python -c "{install}"',
            ) from error


def _be_let_in(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """The keys of a store of objects, by the variables that everybody uses for them."""
    keys = {
        "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID"),
        "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN"),
        "REGION": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    }
    settings = [f"{name} '{_quoted(value)}'" for name, value in keys.items() if value]
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        parsed = urlsplit(endpoint)
        settings += [f"ENDPOINT '{_quoted(parsed.netloc)}'", "URL_STYLE 'path'"]
        settings.append(f"USE_SSL {'true' if parsed.scheme == 'https' else 'false'}")
    connection.execute(f"CREATE OR REPLACE SECRET cdc_lake (TYPE s3{''.join(f', {each}' for each in settings)})")


def meaning(failure: Exception, lake: Lake) -> CdcError:
    """What an error of a lake means for a pipeline."""
    if isinstance(failure, OSError):
        return meaning_of(failure)
    text = str(failure).lower()
    if isinstance(failure, duckdb.Error) and "conflict" in text and "lock" not in text:
        return TargetBusy(
            f"{lake}: somebody else wrote to the lake.", hint="Only one pipeline may write to a lake, and nothing else."
        )
    if isinstance(failure, duckdb.Error) and lake.file is None and ("connection" in text or "libpq" in text):
        return Unavailable(f"{lake}: the catalogue's server was lost.", hint="It is tried again.")
    if isinstance(failure, duckdb.HTTPException) and (refused := _REFUSED.search(text)) is not None:
        return OperatorNeeded(
            f"{lake}: the store of the rows refuses a request (HTTP {refused[1]}).",
            hint="Check the name of the bucket, and the keys in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN.",
        )
    # A store that cannot be reached is an IOException, with these words.
    if isinstance(failure, duckdb.HTTPException) or (isinstance(failure, duckdb.IOException) and _UNREACHED in text):
        return Unavailable(f"{lake}: the store of the rows does not answer correctly.", hint="It is tried again.")
    if isinstance(failure, duckdb.IOException) and "no such file" in text and ".parquet" in text:
        return TargetDrift(
            f"{lake}: a file of rows that the catalogue names is gone.",
            hint="Put it back, or copy the table again: `cdc resync SOURCE TARGET --tables TABLE`.",
        )
    return classify(failure, lake_path(lake))


def _quoted(text: str) -> str:
    return text.replace("'", "''")
