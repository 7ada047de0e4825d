"""From what a user writes to what runs: DSNs to connectors, by name, loaded only when they are used."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdc.errors import UsageError
from cdc.model.schema import TableName
from cdc.pipeline import Pipeline
from cdc.selection import Selection
from cdc.source import Source
from cdc.target import Target

MEGABYTE = 1 << 20

# scheme -> module and function that makes the connector. The module is imported on use, so that a target's packages
# are needed by those who use that target only.
SOURCES = {
    "postgresql": "cdc.sources.postgres",
    "postgres": "cdc.sources.postgres",
    "mysql": "cdc.sources.mysql",
    "mariadb": "cdc.sources.mysql",
}
TARGETS = {"duckdb": "cdc.targets.duckdb"}

_NAME = re.compile(r"[a-z0-9_]{1,40}")
_SUFFIXES = (".duckdb", ".ddb", ".db")


@dataclass(frozen=True, slots=True)
class Options:
    """What a run may be told; every field has a working default.

    Attributes:
        name: of the pipeline: slot, publications and status are named after it.
        selection: which tables.
        include_keyless: also tables whose updates and deletes the log cannot identify, for inserts and truncates.
        workers: sessions that read the snapshot.
        segment_bytes: of log that one segment holds at most.
        queue_bytes: of segments that wait for the target.
        target_memory: bytes that the target's engine may use.
        until_caught_up: end once what the source had at start is applied.
    """

    name: str = "cdc"
    selection: Selection = field(default_factory=Selection)
    include_keyless: bool = False
    workers: int = os.cpu_count() or 1
    segment_bytes: int = 16 * MEGABYTE
    queue_bytes: int = 48 * MEGABYTE
    target_memory: int = 256 * MEGABYTE
    until_caught_up: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot name a pipeline.",
                hint="Use up to 40 lower-case letters, digits and underscores, which is what a slot's name may have.",
            )


def open_pipeline(source: str, target: str, options: Options) -> Pipeline:
    """A pipeline that is ready to run; both ends are checked for form, nothing is opened yet.

    Raises:
        UsageError: a DSN is wrong.
    """
    make_source = source_factory(source, options)
    make_target = target_factory(target, options)
    return Pipeline(make_source, make_target, queue_bytes=options.queue_bytes, until_caught_up=options.until_caught_up)


@dataclass(frozen=True, slots=True)
class TableComparison:
    """One table on both sides; `equal` if every value of every row is."""

    table: TableName
    source_rows: int
    target_rows: int | None
    equal: bool


def compare_tables(source: str, target: str, selection: Selection) -> list[TableComparison]:
    """Compare tables by digests that both servers compute; both must be at rest, and the target not in use."""
    ours = source_module(source).digest_tables(source, selection)
    module, path = target_module(target)
    theirs = module.digest_tables(path, list(ours))
    return [
        TableComparison(schema.table, mine[0], theirs[schema][0] if theirs[schema] else None, mine == theirs[schema])
        for schema, mine in ours.items()
    ]


def source_factory(dsn: str, options: Options) -> Callable[[], Source]:
    made: Callable[[], Source] = source_module(dsn).source_factory(
        dsn,
        name=options.name,
        selection=options.selection,
        include_keyless=options.include_keyless,
        workers=options.workers,
        budget=options.segment_bytes,
    )
    return made


def target_factory(target: str, options: Options) -> Callable[[], Target]:
    module, path = target_module(target)
    made: Callable[[], Target] = module.target_factory(path, memory=options.target_memory)
    return made


def source_module(dsn: str) -> Any:
    """The connector for a source DSN: its control plane as well as its data plane."""
    scheme = dsn.partition("://")[0] if "://" in dsn else ""
    if scheme not in SOURCES:
        raise UsageError(
            f"{scheme!r} is not a source that cdc knows." if scheme else "The source is not a DSN.",
            hint="Write it as postgresql://user@host:5432/database, mysql://user@host/database or mariadb://...",
        )
    return importlib.import_module(SOURCES[scheme])


def target_module(target: str) -> tuple[Any, str]:
    """The connector for a target, and what it is to open: `duckdb:FILE`, or a file that is named like one."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in TARGETS:
        if not rest:
            raise UsageError("The target names no file.", hint="Write it as duckdb:shop.duckdb.")
        return importlib.import_module(TARGETS[scheme]), rest
    if target.endswith(_SUFFIXES) and "://" not in target:
        return importlib.import_module(TARGETS["duckdb"]), target
    raise UsageError(f"{target!r} is not a target that cdc knows.", hint="Write it as duckdb:shop.duckdb.")


def status_file(target: str) -> Path:
    """Where a running pipeline says how it is, since nobody else can read a DuckDB file that it has open."""
    _, path = target_module(target)
    return Path(f"{path}.cdc.json")
