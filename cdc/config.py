"""From what a user writes to what runs: DSNs to connectors, by name, loaded only when they are used."""

from __future__ import annotations

import glob
import importlib
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cdc.backfill import Backfill
from cdc.control import Progress, Values, ask, serve, socket_path
from cdc.errors import TargetBusy, UsageError
from cdc.fanout import FanOut
from cdc.jobs import JOBS
from cdc.journal.observer import JournalAware, source_state
from cdc.liveness import STALL_TIMEOUT, Stall, Watch
from cdc.model.schema import TableName
from cdc.observer import Observer
from cdc.pipeline import Pipeline
from cdc.selection import Selection
from cdc.source import Source
from cdc.target import KEEP_ALL, Mode, Retention, Target, TargetSettings
from cdc.verify import verify_every

MEGABYTE = 1 << 20
JOURNAL = "journal"

# scheme -> module and function that makes the connector. The module is imported on use, so that a target's packages
# are needed by those who use that target only.
SOURCES = {
    "postgresql": "cdc.sources.postgres",
    "postgres": "cdc.sources.postgres",
    "mysql": "cdc.sources.mysql",
    "mariadb": "cdc.sources.mysql",
    "journal": "cdc.journal",
}
TARGETS = {
    "duckdb": "cdc.targets.duckdb",
    "jsonl": "cdc.targets.jsonl",
    "kafka": "cdc.targets.kafka",
    "journal": "cdc.journal",
}

_LISTENS_WITHIN = 5.0  # seconds
_TRY_AGAIN_IN = 0.2
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
        mode: how the target keeps the tables; None for as it does already.
        format: how events are written, where the target holds events.
        rotate_bytes: after which a file of events is followed by another one.
        until_caught_up: end once what the source had at start is applied.
        verify_every: seconds between verifications in the background; None for none.
        retention: how much of a journal is kept.
        stall_timeout: seconds without a sign of life after which a stage is given up (`cdc.liveness`).
    """

    name: str = "cdc"
    selection: Selection = field(default_factory=Selection)
    include_keyless: bool = False
    workers: int = os.cpu_count() or 1
    segment_bytes: int = 16 * MEGABYTE
    queue_bytes: int = 48 * MEGABYTE
    target_memory: int = 256 * MEGABYTE
    mode: Mode | None = None
    format: str = "json"
    rotate_bytes: int = 256 * MEGABYTE
    until_caught_up: bool = False
    verify_every: float | None = None
    retention: Retention = KEEP_ALL
    stall_timeout: float = STALL_TIMEOUT

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot name a pipeline.",
                hint="Use up to 40 lower-case letters, digits and underscores, which is what a slot's name may have.",
            )


def open_pipeline(
    source: str, target: str, options: Options, on_stall: Callable[[Stall], None] | None = None
) -> Pipeline:
    """A pipeline that is ready to run; both ends are checked for form, nothing is opened yet.

    Args:
        on_stall: called on a thread of its own when a stage is given up.

    Raises:
        UsageError: a DSN is wrong.
    """
    notes = getattr(target_module(target)[0], "TELLS_NOTES", False)
    make_source = source_factory(source, target, options, notes=notes)
    make_target = target_factory(source, target, options)
    pipeline = Pipeline(
        make_source,
        make_target,
        queue_bytes=options.queue_bytes,
        until_caught_up=options.until_caught_up,
        watch=Watch(options.stall_timeout, on_stall),
    )

    def backfill() -> None:
        with closing(make_observer(source, options)) as observer:
            Backfill(pipeline, observer).follow()

    def verify() -> None:
        with closing(make_observer(source, options)) as observer:
            verify_every(pipeline, observer, options.verify_every or 0.0)

    if kind_of(source) != JOURNAL:  # in which the rows of all tables are
        pipeline.companions.append(backfill)
    if options.verify_every is not None:
        pipeline.companions.append(verify)
    return pipeline


def open_fanout(
    source: str,
    journal: str,
    targets: Sequence[str],
    options: Options,
    on_stall: Callable[[Stall], None] | None = None,
    feed_made: Callable[[Pipeline, str], None] = lambda _pipeline, _target: None,
) -> FanOut:
    """A pipeline into a journal (`journal:DIR`), and from there one into each target.

    Args:
        on_stall: called when the writer is given up; a feed that hangs ends by itself.
        feed_made: is told of each pipeline that feeds a target, before it runs.

    Raises:
        UsageError: a DSN is wrong, or a target is named twice.
    """
    if len({target_module(target) for target in targets}) < len(targets):
        raise UsageError("A target is named twice.")
    # The journal holds what was chosen; each target is given all of it.
    fed = replace(options, selection=Selection(), verify_every=None)

    def feed(target: str) -> Callable[[bool], Pipeline]:
        def make(until_caught_up: bool) -> Pipeline:
            pipeline = open_pipeline(journal, target, replace(chosen, until_caught_up=until_caught_up))
            feed_made(pipeline, target)
            return pipeline

        knows_modes = hasattr(target_module(target)[0], "MODES")
        chosen = replace(fed, mode=options.mode if knows_modes else None)
        target_factory(source, target, chosen)  # so that what is wrong with it is told at once
        return make

    feeds = {target: feed(target) for target in targets}
    writer = open_pipeline(source, journal, replace(options, mode=None), on_stall)
    return FanOut(writer, feeds, until_caught_up=options.until_caught_up)


def open_rebuild(journal: str, target: str, until: str | None, options: Options) -> Pipeline:
    """A pipeline that builds a new target from a journal, up to a position or a time.

    Raises:
        UsageError: the target exists, or the journal does not know that moment.
    """
    if kind_of(journal) != JOURNAL:
        raise UsageError(f"{journal!r} is not a journal.", hint="Write it as journal:DIR.")
    module, path = target_module(target)
    if module.read_checkpoint(path, options.name) is not None:
        raise UsageError(f"{target} is there already.", hint="Name a new one, or `cdc run` to go on with this one.")
    return Pipeline(
        source_module(journal).rebuild_factory(journal, until, options.segment_bytes),
        target_factory(journal, target, options),
        queue_bytes=options.queue_bytes,
        until_caught_up=True,
    )


def have_done(source: str, target: str, options: Options, what: str, arguments: Values, progress: Progress) -> Values:
    """Have the pipeline of a target do one of the `cdc.jobs`.

    If no process runs it, this one does meanwhile: it follows the log until the job is done.

    Raises:
        TargetBusy: another process has it, and does not listen.
        UsageError: the target has no pipeline, or the job is not one that it can do.
        CdcError: what ended the job, or the pipeline.
    """
    module, path = target_module(target)
    began = time.monotonic()
    while True:
        answer = ask(control_socket(target, options.name), what, arguments, progress)
        if answer is not None:
            return answer
        try:
            checkpoint = module.read_checkpoint(path, options.name)
            break
        except TargetBusy:  # a process that has just begun listens a moment after it has opened its target
            if time.monotonic() > began + _LISTENS_WITHIN:
                raise
            time.sleep(_TRY_AGAIN_IN)
    if checkpoint is None:
        raise UsageError(f"{target} is not the target of a pipeline.", hint="`cdc run` makes it one.")
    if source_state(checkpoint.state) != checkpoint.state:
        raise UsageError(
            f"{target} is fed from a journal, and nobody feeds it.",
            hint="Do this while `cdc run SOURCE --journal DIR --to TARGET` runs.",
        )
    with closing(make_observer(source, options)) as observer:
        followed = list(observer.followed(checkpoint.state))
        if what == "resync":
            # Before anything is applied, which may be what a damaged table does not allow.
            chosen = Selection(tuple(arguments["tables"]), (), observer.default_schema)
            module.copy_parts(path, options.name, [schema for schema in followed if chosen.matches(schema.table)])
        everything = Selection(tuple(glob.escape(str(schema.table)) for schema in followed))
        pipeline = open_pipeline(source, target, replace(options, selection=everything, until_caught_up=False))
        done: list[Values] = []
        pipeline.run_beside(lambda _: done.append(JOBS[what](pipeline, observer, arguments, progress)))
    return done[0]


def serve_jobs(pipeline: Pipeline, source: str, target: str, options: Options) -> None:
    """Let other processes have jobs done by a pipeline, for as long as it runs (`have_done`)."""

    def answer(what: str, arguments: Values, progress: Progress) -> Values:
        with closing(make_observer(source, options)) as observer:
            return JOBS[what](pipeline, observer, arguments, progress)

    def listen() -> None:
        while pipeline.is_running and not pipeline.is_open:
            pipeline.rest(0.05)
        if pipeline.is_running:
            serve(control_socket(target, options.name), answer, lambda: pipeline.is_running)

    pipeline.companions.append(listen)


def control_socket(target: str, name: str) -> Path:
    """Where a target's pipeline listens."""
    _, path = target_module(target)
    return socket_path(f"{name}@{_server(path)}" if _is_server(path) else str(Path(path).resolve()))


def make_observer(source: str, options: Options) -> Observer:
    """Somebody who looks at the source beside a pipeline; connects when he is first asked for something."""
    observer: Observer | None = source_module(source).make_observer(source, name=options.name)
    if observer is None:
        raise UsageError(f"{source} has no tables to look at.", hint="Name the database that it was made from.")
    return JournalAware(observer)


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
        TableComparison(
            schema.table,
            mine.row_count,
            digest.row_count if (digest := theirs[schema]) is not None else None,
            mine == theirs[schema],
        )
        for schema, mine in ours.items()
    ]


def source_factory(dsn: str, target: str, options: Options, *, notes: bool = False) -> Callable[[], Source]:
    """What opens a source.

    Args:
        notes: the target tells what applications said of their transactions.
    """
    made: Callable[[], Source] = source_module(dsn).source_factory(
        dsn,
        name=known_as(dsn, target, options.name),
        selection=options.selection,
        include_keyless=options.include_keyless,
        workers=options.workers,
        budget=options.segment_bytes,
        notes=notes,
    )
    return made


def target_factory(source: str, target: str, options: Options) -> Callable[[], Target]:
    module, path = target_module(target)
    if options.mode is not None and options.mode not in getattr(module, "MODES", ()):
        raise UsageError(f"{target} does not know --mode {options.mode}.", hint="DuckDB does: duckdb:FILE.")
    if kind_of(source) == JOURNAL == target.partition(":")[0]:
        raise UsageError("A journal is not made from a journal.", hint="Copy its folder while nobody writes it.")
    kind, database = origin_of(source)
    settings = TargetSettings(
        options.name,
        kind,
        options.target_memory,
        mode=options.mode,
        retention=options.retention,
        database=database,
        format=options.format,
        rotate=options.rotate_bytes,
    )
    made: Callable[[], Target] = module.target_factory(path, settings)
    return made


def known_as(source: str, target: str | None, name: str) -> str:
    """What a source knows a pipeline by: its name, or for a journal, which feeds many, the target's."""
    return target if kind_of(source) == JOURNAL and target is not None else name


def origin_of(source: str) -> tuple[str, str]:
    """The kind of the database that a source's events come from, and its name, as `TargetSettings` has them."""
    if kind_of(source) != JOURNAL:
        return kind_of(source), database_of(source)
    origin: tuple[str, str] = source_module(source).origin(source)
    return origin


def database_of(dsn: str) -> str:
    """The database that a DSN names."""
    return unquote(dsn.partition("://")[2].partition("?")[0].partition("/")[2])


def source_module(dsn: str) -> Any:
    """The connector for a source DSN: its control plane as well as its data plane."""
    scheme = kind_of(dsn)
    if scheme not in SOURCES:
        raise UsageError(
            f"{scheme!r} is not a source that cdc knows." if scheme else "The source is not a DSN.",
            hint="Write it as postgresql://user@host:5432/database, mysql://user@host/database, mariadb://... or "
            "journal:DIR.",
        )
    return importlib.import_module(SOURCES[scheme])


def kind_of(source: str) -> str:
    """What a source is by its DSN's scheme; empty if it has none."""
    if source.startswith(f"{JOURNAL}:"):
        return JOURNAL
    return source.partition("://")[0] if "://" in source else ""


def target_module(target: str) -> tuple[Any, str]:
    """The connector for a target, and what it is to open: `duckdb:FILE`, or a file that is named like one."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in TARGETS:
        if not rest:
            raise UsageError("The target names no file.", hint=f"Write it as {scheme}:FILE.")
        return importlib.import_module(TARGETS[scheme]), rest
    if target.endswith(_SUFFIXES) and "://" not in target:
        return importlib.import_module(TARGETS["duckdb"]), target
    raise UsageError(
        f"{target!r} is not a target that cdc knows.",
        hint="Write it as duckdb:FILE, jsonl:FILE, kafka://HOST:9092 or journal:DIR.",
    )


def status_file(target: str, name: str) -> Path:
    """Where a running pipeline says how it is: beside its file, which nobody else can read meanwhile, or its socket."""
    _, path = target_module(target)
    return control_socket(target, name).with_suffix(".json") if _is_server(path) else Path(f"{path}.cdc.json")


def _is_server(path: str) -> bool:
    """Whether a target is no file: `kafka://host:9092?...`, where several pipelines may write."""
    return path.startswith("//")


def _server(path: str) -> str:
    """A server's address without what is said of how to write to it."""
    return path.partition("?")[0].strip("/")
