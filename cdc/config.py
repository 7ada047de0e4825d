"""From what a user writes to what runs: DSNs to connectors, by name, loaded only when they are used."""

from __future__ import annotations

import glob
import importlib
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson

from cdc.backfill import Backfill
from cdc.control import Progress, Values, ask, serve, socket_path
from cdc.errors import TargetBusy, UsageError
from cdc.fanout import FanOut
from cdc.findings import Finding
from cdc.healing import Healing
from cdc.jobs import JOBS
from cdc.journal.observer import JournalAware, source_state
from cdc.liveness import STALL_TIMEOUT, Stall, Watch
from cdc.model.position import Checkpoint
from cdc.model.schema import TableName
from cdc.model.standing import Standing, State
from cdc.observer import Observer
from cdc.pipeline import Pipeline
from cdc.removal import Removal
from cdc.selection import Selection
from cdc.source import Source
from cdc.target import KEEP_ALL, Mode, Retention, SetApart, Target, TargetSettings, takes_all
from cdc.told import AfterShape, Told
from cdc.verify import verify_every

T = TypeVar("T")

MEGABYTE = 1 << 20
SEGMENT_BYTES = 16 * MEGABYTE
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
_TWICE_READ = ("mysql", "mariadb")  # the kinds whose log another decoder reads, too
TARGETS = {
    "duckdb": "cdc.targets.duckdb",
    "jsonl": "cdc.targets.jsonl",
    "kafka": "cdc.targets.kafka",
    "journal": "cdc.journal",
}

_TARGET_MEMORY = 256 * MEGABYTE
_ROTATE_BYTES = 256 * MEGABYTE
_LISTENS_WITHIN = 5.0  # seconds
_TRY_AGAIN_IN = 0.2
_NAME = re.compile(r"[a-z0-9_]{1,40}")
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NAMELESS = "cdc"
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
        live_share: of a core, that small commits may take; they wait for each other for that.
        target_memory: bytes that the target's engine may use; None for what is usual there.
        mode: how the target keeps the tables; None for as it does already.
        format: how events are written, where the target holds events; None for as they are already.
        rotate_bytes: after which a file of events is followed by another one; None for what is usual there.
        until_caught_up: end once what the source had at start is applied.
        verify_every: seconds between verifications in the background; None for none.
        retention: how much of a journal is kept.
        holds_tables: what concerns one table holds that table; otherwise it ends the run.
        after_shape: how a table is compared with the source after its shape has changed.
        max_rate: rows per second that are compared at most where a table is suspect; None for no bound.
        waits_for_tables: a source that has no table to follow yet is looked at again and again.
        stall_timeout: seconds without a sign of life after which a stage is given up (`cdc.liveness`).
        only_looks: tables neither come nor go, and nothing is changed on the source.
    """

    name: str = _NAMELESS
    selection: Selection = field(default_factory=Selection)
    include_keyless: bool = False
    workers: int = os.cpu_count() or 1
    segment_bytes: int = SEGMENT_BYTES
    queue_bytes: int = 48 * MEGABYTE
    live_share: float = 0.2
    target_memory: int | None = None
    mode: Mode | None = None
    format: str | None = None
    rotate_bytes: int | None = None
    until_caught_up: bool = False
    verify_every: float | None = None
    retention: Retention = KEEP_ALL
    holds_tables: bool = True
    after_shape: AfterShape = AfterShape.SAMPLE
    max_rate: float | None = None
    stall_timeout: float = STALL_TIMEOUT
    waits_for_tables: bool = False
    only_looks: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot name a pipeline.",
                hint="Use up to 40 lower-case letters, digits and underscores, which is what a slot's name may have.",
            )

    @property
    def told(self) -> Told:
        """What of these stays with the pipeline."""
        rate = float(self.max_rate) if self.max_rate is not None else None
        return Told(self.selection, self.include_keyless, self.holds_tables, self.after_shape, rate)

    def as_told(self, told: Told) -> Options:
        """The same, with what a run was told before."""
        return replace(
            self,
            selection=told.selection,
            include_keyless=told.include_keyless,
            holds_tables=told.holds_tables,
            after_shape=told.after_shape,
            max_rate=told.max_rate,
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
    module, _ = target_module(target)
    make_source = source_factory(source, target, options, notes=module.TELLS_NOTES, set_apart=module.set_apart)
    make_target = target_factory(source, target, options)
    pipeline = Pipeline(
        make_source,
        make_target,
        queue_bytes=options.queue_bytes,
        live_share=options.live_share,
        until_caught_up=options.until_caught_up,
        holds_tables=options.holds_tables,
        waits_for_tables=options.waits_for_tables,
        watch=Watch(options.stall_timeout, on_stall),
    )

    pipeline.meant = options.selection

    def backfill() -> None:
        with closing(make_observer(source, options)) as observer:
            Backfill(pipeline, observer).follow()

    def verify() -> None:
        with closing(make_observer(source, options)) as observer:
            verify_every(pipeline, observer, options.verify_every or 0.0)

    if kind_of(source) != JOURNAL:  # in which the rows of all tables are
        pipeline.companions.append(backfill)
        heal(pipeline, source, options)
    if options.verify_every is not None:
        pipeline.companions.append(verify)
    return pipeline


def heal(pipeline: Pipeline, source: str, options: Options) -> None:
    """Have a pipeline compare tables that are suspect with their source, for as long as it runs."""

    def follow() -> None:
        with closing(make_observer(source, options)) as observer:
            Healing(pipeline, observer, options.after_shape, options.max_rate).follow()

    pipeline.heals = True
    pipeline.companions.append(follow)


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
    refuse_options([journal, *targets], options)
    # The journal holds what was chosen; each target is given all of it.
    fed = replace(options, selection=Selection(), verify_every=None)

    def feed(target: str) -> Callable[[bool], Pipeline]:
        def make(until_caught_up: bool) -> Pipeline:
            pipeline = open_pipeline(journal, target, replace(chosen, until_caught_up=until_caught_up))
            if not until_caught_up:  # then nobody writes the journal on, to the place of a look
                heal(pipeline, source, chosen)
            pipeline.meant = options.selection
            feed_made(pipeline, target)
            return pipeline

        chosen = fitting(fed, target)
        target_factory(source, target, chosen)  # so that what is wrong with it is told at once
        return make

    feeds = {target: feed(target) for target in targets}
    writer = open_pipeline(source, journal, fitting(options, journal), on_stall)
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
        live_share=options.live_share,
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
    refuse_other(target, options.name, read_status(target, options.name).get("pipeline", options.name))
    checkpoint: Checkpoint | Values | None = _asked_first(
        target, options.name, what, arguments, progress, lambda: module.read_checkpoint(path, options.name)
    )
    if isinstance(checkpoint, dict):
        return checkpoint
    if checkpoint is None:
        raise UsageError(f"{target} is not the target of a pipeline.", hint="`cdc run SOURCE TARGET` makes it one.")
    refuse_other(target, options.name, pipeline_of(source, checkpoint.state, options.name))
    if source_state(checkpoint.state) != checkpoint.state:
        raise UsageError(
            f"{target} is fed from a journal, and nobody feeds it.",
            hint="Do this while `cdc run SOURCE --journal DIR --to TARGET` runs.",
        )
    with closing(make_observer(source, options)) as observer:
        followed = list(observer.followed(checkpoint.state))
        if what == "resync":
            # Before anything is applied, which may be what a damaged table does not allow.
            wanted = Selection(tuple(arguments["tables"]), (), observer.default_schema)
            module.copy_parts(path, options.name, [schema for schema in followed if wanted.matches(schema.table)])
        told: Told | None = source_module(source).told(checkpoint.state)
        chosen = options.as_told(told or _guessed(source, checkpoint.state))
        pipeline = open_pipeline(source, target, replace(chosen, until_caught_up=False, only_looks=what != "resync"))
        pipeline.meant = told.selection if told is not None else None
        done: list[Values] = []
        pipeline.run_beside(lambda _: done.append(JOBS[what](pipeline, observer, arguments, progress)))
    return done[0]


def _asked_first(
    target: str, name: str, what: str, arguments: Values, progress: Progress, alone: Callable[[], T]
) -> T | Values:
    """The answer of the process that runs a target's pipeline; without such a process, what is found here.

    Raises:
        TargetBusy: another process has it, and does not listen.
    """
    began = time.monotonic()
    while True:
        answer = ask(control_socket(target, name), what, arguments, progress)
        if answer is not None:
            return answer
        try:
            return alone()
        except TargetBusy:  # a process that has just begun listens a moment after it has opened its target
            if time.monotonic() > began + _LISTENS_WITHIN:
                raise
            time.sleep(_TRY_AGAIN_IN)


def back_up(target: str, file: Path) -> Values:
    """Make a copy of a target, by the process that has it open or, if none has, by this one.

    Raises:
        UsageError: it is not a target that is one file, or no copy can go there.
    """
    module, path = target_module(target)
    if not module.IS_ONE_FILE:
        raise UsageError(
            f"{target} is not one DuckDB file.", hint="docs/operating.md, Backups, says how others are copied."
        )

    def alone() -> Values:
        checkpoint: Checkpoint | None = module.back_up(path, file)
        return {"position": checkpoint.position.text if checkpoint is not None else None}

    arguments = {"file": str(file.absolute())}
    return _asked_first(target, _NAMELESS, "backup", arguments, lambda _: None, alone)


def _guessed(source: str, state: str) -> Told:
    """What a run may have been told whose version did not keep it: to follow what it does, held tables included."""
    standings: dict[TableName, Standing] = source_module(source).table_standings(state)
    known = [table for table, standing in standings.items() if standing.state is not State.LEFT_OUT]
    return Told(Selection(tuple(glob.escape(str(table)) for table in known)), include_keyless=True)


def serve_jobs(pipeline: Pipeline, source: str, target: str, options: Options) -> None:
    """Let other processes have jobs done by a pipeline, for as long as it runs (`have_done`)."""

    path = own_socket(target, options.name)  # before anything is made

    def answer(what: str, arguments: Values, progress: Progress) -> Values:
        with closing(make_observer(source, options)) as observer:
            return JOBS[what](pipeline, observer, arguments, progress)

    def listen() -> None:
        while pipeline.is_running and not pipeline.is_open:
            pipeline.rest(0.05)
        while pipeline.is_running:  # once more if somebody has tidied up the folder of sockets
            serve(path, answer, lambda: pipeline.is_running)

    pipeline.companions.append(listen)


def own_socket(target: str, name: str) -> Path:
    """Where this process listens if it runs a target's pipeline."""
    _, path = target_module(target)
    return socket_path(f"{name}@{_server(path)}" if _is_server(path) else str(Path(path).resolve()))


def control_socket(target: str, name: str) -> Path:
    """Where a target's pipeline listens: by its own account, since its environment may be another one (O8)."""
    said = read_status(target, name).get("socket")
    return Path(said) if said is not None else own_socket(target, name)


def make_observer(source: str, options: Options) -> Observer:
    """Somebody who looks at the source beside a pipeline; connects when he is first asked for something."""
    observer: Observer | None = source_module(source).make_observer(source, name=options.name)
    if observer is None:
        raise UsageError(f"{source} has no tables to look at.", hint="Name the database that it was made from.")
    return JournalAware(observer)


def removals(source: str, target: str | None, name: str | None) -> list[Removal]:
    """What `cdc teardown` removes of a pipeline: what is in its target first. Nothing is removed yet.

    Args:
        target: None if it is gone. Then the name has to be given.

    Raises:
        UsageError: source, target and name do not belong together (O44).
        TargetBusy, SlotBusy: the pipeline runs.
    """
    if target is None:
        if name is None:
            raise UsageError(
                "Nothing says which pipeline is meant.",
                hint="Write cdc teardown SOURCE TARGET, or cdc teardown SOURCE --name NAME if the target is gone.",
            )
        Options(name)
        return list(source_module(source).source_removals(source, name, None))
    module, path = target_module(target)
    known = name_of(source, target, None) if not _is_server(path) else name or _NAMELESS
    checkpoint = module.read_checkpoint(path, known)
    if checkpoint is None:
        raise UsageError(
            f"{target} is not the target of a pipeline{f' named {known!r}' if _is_server(path) else ''}.",
            hint="If the target is gone: cdc teardown SOURCE --name NAME",
        )
    if name not in (None, known):
        raise UsageError(
            f"{target} belongs to the pipeline {known!r}, not to {name!r}.",
            hint=f"Nothing was removed. Leave --name out, or name the target of {name!r}.",
        )
    state = checkpoint.state if kind_of(source) == JOURNAL else source_state(checkpoint.state)
    on_source: list[Removal] = source_module(source).source_removals(source, known_as(source, target, known), state)
    is_fed = state != checkpoint.state  # from a journal, which may go on
    found = [*module.target_removals(path, known), *([] if is_fed else on_source)]
    file = status_file(target, known)
    if file.exists():
        found.append(Removal(f"status file {file}", lambda: file.unlink(missing_ok=True)))
    return found


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


def compare_log(source: str, selection: Selection, file: str | None) -> list[Finding]:
    """A file of the source's log as two decoders read it, and where they differ; changes nothing.

    Raises:
        UsageError: there is no second decoder for its log, or no such file.
    """
    if kind_of(source) not in _TWICE_READ:
        raise UsageError("There is no second decoder for this log.", hint="There is one for mysql:// and mariadb://.")
    found: list[Finding] = source_module(source).compare_log(source, selection, file)
    return found


def source_factory(
    dsn: str, target: str, options: Options, *, notes: bool = False, set_apart: SetApart = takes_all
) -> Callable[[], Source]:
    """What opens a source.

    Args:
        notes: the target tells what applications said of their transactions.
        set_apart: what the target says of tables that come.
    """
    made: Callable[[], Source] = source_module(dsn).source_factory(
        dsn,
        name=known_as(dsn, target, options.name),
        told=options.told,
        workers=options.workers,
        budget=options.segment_bytes,
        notes=notes,
        only_looks=options.only_looks,
        set_apart=set_apart,
    )
    return made


def target_factory(source: str, target: str, options: Options) -> Callable[[], Target]:
    module, path = target_module(target)
    refuse_options([target], options)
    if kind_of(source) == JOURNAL == target.partition(":")[0]:
        raise UsageError("A journal is not made from a journal.", hint="Copy its folder while nobody writes it.")
    kind, database = origin_of(source)
    settings = TargetSettings(
        options.name,
        kind,
        options.target_memory or _TARGET_MEMORY,
        mode=options.mode,
        retention=options.retention,
        database=database,
        format=options.format,
        rotate=options.rotate_bytes or _ROTATE_BYTES,
    )
    made: Callable[[], Target] = module.target_factory(path, settings)
    return made


def refuse_options(targets: Iterable[str], options: Options) -> None:
    """Refuse options that none of the targets has (O34)."""
    known = {target: target_module(target)[0].OPTIONS for target in targets}
    given = {
        "--mode": options.mode,
        "--memory": options.target_memory,
        "--format": options.format,
        "--rotate": options.rotate_bytes,
        "--journal-age": options.retention.age,
        "--journal-size": options.retention.size,
        "--journal-budget": options.retention.budget,
    }
    for option, value in given.items():
        if value is not None and not any(option in has for has in known.values()):
            has = "; ".join(f"{target} has {', '.join(sorted(options))}" for target, options in known.items())
            raise UsageError(f"{' and '.join(known)} cannot do anything with {option}.", hint=f"{has}.")


def fitting(options: Options, target: str) -> Options:
    """The options without those that a target does not have, but another one that is fed beside it."""
    has = target_module(target)[0].OPTIONS
    return replace(
        options,
        mode=options.mode if "--mode" in has else None,
        target_memory=options.target_memory if "--memory" in has else None,
        format=options.format if "--format" in has else None,
        rotate_bytes=options.rotate_bytes if "--rotate" in has else None,
        retention=options.retention if "--journal-size" in has else KEEP_ALL,
    )


def name_of(source: str, target: str, given: str | None) -> str:
    """The name of a target's pipeline: as it was given; as the target, or the journal that feeds it, has it; for a new
    one after the target's file.

    Raises:
        CheckpointUnreadable: the target's pipeline is one of another kind of source.
    """
    if given is not None:
        return given
    module, path = target_module(target)
    if kind_of(source) == JOURNAL:
        name: str = source_module(source).pipeline_of(source)
        return name
    if _is_server(path):
        return _NAMELESS  # several pipelines may write to one, and each is known by its name alone
    stem = re.sub(r"[^a-z0-9]+", "_", Path(path).name.partition(".")[0].lower()).strip("_")
    new = stem[:40] or _NAMELESS
    try:
        checkpoint = module.read_checkpoint(path, "")
    except TargetBusy:  # also by a run that has just opened it, and has said nothing yet
        running: str = last_said(target, "").get("pipeline", new)
        return running
    if checkpoint is None:
        return new
    return pipeline_of(source, checkpoint.state, new)


def pipeline_of(source: str, state: str, name: str) -> str:
    """The name of the pipeline that a target's state belongs to; a journal feeds targets under any name."""
    if kind_of(source) == JOURNAL:
        return name
    known: str = source_module(source).pipeline_of(source_state(state))
    return known


def refuse_other(target: str, name: str, pipeline: str) -> None:
    """What is asked of a target is of its own pipeline (O28, O44).

    Raises:
        UsageError: it is of another one.
    """
    if pipeline != name:
        raise UsageError(f"{target} belongs to the pipeline {pipeline!r}.", hint=f"Give its name: --name {pipeline}")


def known_as(source: str, target: str | None, name: str) -> str:
    """What a source knows a pipeline by: its name, or for a journal, which feeds many, the target's."""
    return target if kind_of(source) == JOURNAL and target is not None else name


def origin_of(source: str) -> tuple[str, str]:
    """The kind of the database that a source's events come from, and its name, as `TargetSettings` has them."""
    module = source_module(source)
    if kind_of(source) != JOURNAL:
        return kind_of(source), module.database_of(source)
    origin: tuple[str, str] = module.origin(source)
    return origin


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
    if target.endswith(_SUFFIXES) and not _OTHER_SCHEME.match(target):
        return importlib.import_module(TARGETS["duckdb"]), target
    raise UsageError(
        f"{target!r} is not a target that cdc knows.",
        hint="Write it as duckdb:FILE, jsonl:FILE, kafka://HOST:9092 or journal:DIR.",
    )


def status_file(target: str, name: str) -> Path:
    """Where a running pipeline says how it is: beside its file, which nobody else can read meanwhile, or its socket."""
    _, path = target_module(target)
    return own_socket(target, name).with_suffix(".json") if _is_server(path) else Path(f"{path}.cdc.json")


def last_said(target: str, name: str) -> Values:
    """What a process that runs, or ran, a target's pipeline has said last; empty if there was no such process."""
    try:
        content: Values = orjson.loads(status_file(target, name).read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def read_status(target: str, name: str) -> Values:
    """What the process that runs a target's pipeline has said last; empty if no such process lives."""
    content = last_said(target, name)
    try:
        os.kill(content["pid"], 0)
    except PermissionError:  # it lives, and is another user's
        return content
    except (OSError, KeyError):
        return {}
    return content


def _is_server(path: str) -> bool:
    """Whether a target is no file: `kafka://host:9092?...`, where several pipelines may write."""
    return path.startswith("//")


def _server(path: str) -> str:
    """A server's address without what is said of how to write to it."""
    return path.partition("?")[0].strip("/")
