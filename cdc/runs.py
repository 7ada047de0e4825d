"""From what a user writes to what runs: a pipeline, several from a journal, or a job of one."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cdc.connectors import (
    JOURNAL,
    Answers,
    HoldsTables,
    KeepsHistories,
    OneFile,
    Publishes,
    TargetKind,
    TwiceRead,
    database_module,
    every,
    fitting,
    kind_of,
    known_as,
    make_observer,
    refuse_options,
    source_factory,
    source_module,
    target_factory,
    target_module,
)
from cdc.engine.liveness import Stall, Watch
from cdc.engine.pipeline import Pipeline
from cdc.errors import CheckpointUnreadable, TargetBusy, Unavailable, UsageError
from cdc.jobs.control import Progress, Values, ask, is_served, serve
from cdc.jobs.tidying import tidy
from cdc.journal import rebuild_factory
from cdc.journal.observer import source_state
from cdc.logs import without_password
from cdc.model.position import Checkpoint
from cdc.model.schema import TableName
from cdc.model.selection import Selection
from cdc.model.standing import State
from cdc.options import NAMELESS, KeptOptions, Options
from cdc.removal import Removal
from cdc.sources.findings import Finding
from cdc.target import QueryAnswer, QueryWishes
from cdc.whereabouts import (
    control_socket,
    name_of,
    own_socket,
    pipeline_of,
    read_status,
    refuse_other,
    status_file,
)

if TYPE_CHECKING:
    from cdc.engine.fanout import FanOut
    from cdc.jobs.publishing import Publisher
    from cdc.observer import Observer

T = TypeVar("T")

_LISTENS_WITHIN = 5.0  # seconds
_TRY_AGAIN_IN = 0.2
_LOOK_EVERY = 0.2


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
    notes = module.ABILITIES.tells_notes
    make_source = source_factory(source, target, options, notes=notes, set_apart=module.set_apart)
    make_target = target_factory(source, target, options)
    pipeline = Pipeline(
        make_source,
        make_target,
        queue_bytes=options.queue_bytes,
        live_share=options.live_share,
        every=every(target, options),
        until_caught_up=options.until_caught_up,
        holds_tables=options.holds_tables,
        waits_for_tables=options.waits_for_tables,
        name=options.name,
        watch=Watch(options.stall_timeout, on_stall),
    )

    pipeline.meant = options.selection

    def backfill() -> None:
        if not _comes(pipeline, lambda: bool(pipeline.copying)):
            return
        from cdc.jobs.backfill import Backfill  # noqa: PLC0415  # most runs have copied all tables

        with closing(make_observer(source, options)) as observer:
            Backfill(pipeline, observer).follow()

    def verify() -> None:
        from cdc.jobs.verify import verify_every  # noqa: PLC0415

        with closing(make_observer(source, options)) as observer:
            verify_every(pipeline, observer, options.verify_every or 0.0)

    if kind_of(source) != JOURNAL:  # in which the rows of all tables are
        pipeline.companions.append(backfill)
        heal(pipeline, source, options)
    if options.verify_every is not None:
        pipeline.companions.append(verify)
    pipeline.companions.append(partial(tidy, pipeline))
    if options.publish is not None:
        pipeline.companions.append(_publisher(pipeline, source, target, options, options.publish).follow)
    if options.publish is not None and options.serving is not None:
        from cdc.serve.child import Child, socket_of  # noqa: PLC0415  # few runs serve

        socket = socket_of(target, options.name)
        pipeline.companions.append(Child(pipeline, options.publish, options.serving, socket).follow)
    return pipeline


def _publisher(pipeline: Pipeline, source: str, target: str, options: Options, file: Path) -> Publisher:
    """What renews the copy of a target that others read.

    Raises:
        UsageError: the copy would take the place of something that this pipeline has not made.
    """
    module, place = target_module(target)
    if not isinstance(module, Publishes):
        raise UsageError(f"{without_password(target)} is not one file, so no copy of it can be published.")
    from cdc.jobs.publishing import Publisher  # noqa: PLC0415  # few runs publish

    publication = module.make_publication(place, file)
    publication.refuse_place()
    refuse_foreign = partial(_refuse_foreign, module, source, target, options.name, file)
    if file.exists():
        refuse_foreign()
    return Publisher(pipeline, publication, options.publish_every, refuse_foreign)


def _refuse_foreign(module: TargetKind, source: str, target: str, name: str, file: Path) -> None:
    shown = without_password(target)
    hint = "Name another file, or remove this one if nobody needs it."
    try:
        checkpoint = module.read_checkpoint(str(file), name)
        of = pipeline_of(source, checkpoint.state, name) if checkpoint is not None else None
    except TargetBusy as error:
        raise UsageError(f"{file} is not a copy of {shown}: {error.message}", hint="Name another file.") from error
    except (CheckpointUnreadable, UsageError) as error:
        raise UsageError(f"{file} is not a copy of {shown}: {error.message}", hint=hint) from error
    if of is None:
        raise UsageError(f"{file} is not a copy of {shown}: it was not made by a pipeline.", hint=hint)
    if of != name:
        raise UsageError(f"{file} is not a copy of {shown}: it is of the pipeline {of!r}, not of {name!r}.", hint=hint)


def heal(pipeline: Pipeline, source: str, options: Options) -> None:
    """Have a pipeline compare tables that are suspect with their source, for as long as it runs."""

    def follow() -> None:
        if not _comes(pipeline, lambda: bool(pipeline.suspects or pipeline.evolved)):
            return
        from cdc.jobs.healing import Healing  # noqa: PLC0415  # most runs have no suspect table

        with closing(make_observer(source, options)) as observer:
            Healing(pipeline, observer, options.after_shape, options.max_rate).follow()

    pipeline.heals = True
    pipeline.companions.append(follow)


def _comes(pipeline: Pipeline, work: Callable[[], bool]) -> bool:
    """Wait until there is work; whether there was any before the end of the run."""
    while pipeline.is_running:
        if work():
            return True
        pipeline.rest(_LOOK_EVERY)
    return False


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
        feed_made: called with each pipeline that feeds a target, before it runs.

    Raises:
        UsageError: a DSN is wrong, or a target is named twice.
    """
    if len({target_module(target) for target in targets}) < len(targets):
        raise UsageError("A target is named twice.")
    refuse_options([journal, *targets], options)
    if options.publish is not None and len(_publishing(targets)) > 1:
        raise UsageError(
            f"--publish {options.publish} would be a copy of several targets: {', '.join(_publishing(targets))}.",
            hint="Run one of them as a pipeline of its own: cdc run journal:DIR TARGET --publish FILE",
        )
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
        target_factory(source, target, chosen)  # so that what is wrong with it is said at once
        return make

    feeds = {target: feed(target) for target in targets}
    from cdc.engine.fanout import FanOut  # noqa: PLC0415  # few runs have a journal

    writer = open_pipeline(source, journal, fitting(options, journal), on_stall)
    return FanOut(writer, feeds, until_caught_up=options.until_caught_up)


def _publishing(targets: Sequence[str]) -> list[str]:
    return [target for target in targets if isinstance(target_module(target)[0], Publishes)]


def open_rebuild(journal: str, target: str, until: str | None, options: Options) -> Pipeline:
    """A pipeline that builds a new target from a journal, up to a position or a time.

    Raises:
        UsageError: the target exists, or the journal does not know that moment.
    """
    if kind_of(journal) != JOURNAL:
        raise UsageError(f"{journal!r} is not a journal.", hint="Write it as journal:DIR.")
    module, path = target_module(target)
    if module.read_checkpoint(path, options.name) is not None:
        raise UsageError(
            f"{without_password(target)} is there already.",
            hint="Name a new target; or go on with this one: cdc run SOURCE TARGET",
        )
    return Pipeline(
        rebuild_factory(journal, until, options.segment_bytes),
        target_factory(journal, target, options),
        queue_bytes=options.queue_bytes,
        live_share=options.live_share,
        until_caught_up=True,
        name=options.name,
    )


def have_done(source: str, target: str, options: Options, what: str, arguments: Values, progress: Progress) -> Values:
    """Have the pipeline of a target do one of the `cdc.jobs.requests`.

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
        raise UsageError(
            f"{without_password(target)} is not the target of a pipeline.", hint="`cdc run SOURCE TARGET` makes it one."
        )
    refuse_other(target, options.name, pipeline_of(source, checkpoint.state, options.name))
    if source_state(checkpoint.state) != checkpoint.state:
        raise UsageError(
            f"{without_password(target)} is fed from a journal, and no process feeds it now.",
            hint="Start `cdc run SOURCE --journal DIR --to TARGET`, and run this command while that runs.",
        )
    with closing(make_observer(source, options)) as observer:
        followed = list(observer.followed(checkpoint.state))
        if what == "resync":
            # Before anything is applied, which may be what a damaged table does not allow.
            wanted = Selection(tuple(arguments["tables"]), (), observer.default_schema)
            module.copy_parts(path, options.name, [schema for schema in followed if wanted.matches(schema.table)])
        kept = database_module(source).kept_options(checkpoint.state)
        chosen = options.with_kept(kept or _guessed(source, checkpoint.state))
        pipeline = open_pipeline(source, target, replace(chosen, until_caught_up=False, only_looks=what != "resync"))
        pipeline.meant = kept.selection if kept is not None else None
        done: list[Values] = []
        pipeline.run_beside(lambda _: done.append(_do(what, pipeline, observer, arguments, progress)))
    return done[0]


def _do(what: str, pipeline: Pipeline, observer: Observer, arguments: Values, progress: Progress) -> Values:
    from cdc.jobs.requests import JOBS  # noqa: PLC0415  # most runs end before anybody asks

    return JOBS[what](pipeline, observer, arguments, progress)


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
    if not isinstance(module, OneFile):
        raise UsageError(
            f"{without_password(target)} is not one DuckDB file.",
            hint="docs/operating.md, Backups, describes how other targets are copied.",
        )

    def alone() -> Values:
        checkpoint = module.back_up(path, file)
        return {"position": checkpoint.position.text if checkpoint is not None else None}

    arguments = {"file": str(file.absolute())}
    return _asked_first(target, NAMELESS, "backup", arguments, lambda _: None, alone)


def query(target: str, wishes: QueryWishes) -> QueryAnswer:
    """Answer a question in SQL, by the process that has a target to itself or, if none has, by this one.

    Raises:
        UsageError: it is not a target that can be asked, or the question is refused.
        TargetBusy: another process has it, and does not listen.
    """
    module, place = target_module(target)
    if not isinstance(module, Answers):
        raise UsageError(
            f"{without_password(target)} is not a target that `cdc query` can ask.",
            hint="It asks DuckDB files and lakes. A server is asked with its own client, for example psql.",
        )
    arguments = {"sql": wishes.sql, "limit": wishes.limit, "seconds": wishes.seconds}
    from cdc.jobs import answers  # noqa: PLC0415  # which has arrays

    found = _by_whom_it_has(target, "query", arguments, lambda: module.query(place, wishes))
    return answers.read(found) if isinstance(found, dict) else found


@contextmanager
def open_histories(target: str) -> Iterator[Any]:
    """What answers questions about the past of a target, by the process that has it to itself or by this one (O32).

    Raises:
        UsageError: it keeps no history.
        TargetBusy: another process has it, and does not listen.
    """
    module, place = target_module(target)
    if not isinstance(module, KeepsHistories):
        raise UsageError(
            f"{without_password(target)} keeps no history.",
            hint="`cdc run ... --mode history` keeps one; `cdc targets` lists the targets that can.",
        )
    if isinstance(module, OneFile) and is_served(control_socket(target, NAMELESS)):
        from cdc.jobs.past import AskedHistories  # noqa: PLC0415  # which has statements

        def asked(what: str, arguments: Values) -> Values:
            answer = ask(control_socket(target, NAMELESS), what, arguments, lambda _: None)
            if answer is None:
                raise Unavailable("The pipeline ended before the command was done.", hint="Run the command again.")
            return answer

        yield AskedHistories(asked)
        return
    with module.open_histories(place) as histories:
        yield histories


def _by_whom_it_has(target: str, what: str, arguments: Values, alone: Callable[[], T]) -> T | Values:
    """Only one file is kept from others by the process that writes it."""
    if not isinstance(target_module(target)[0], OneFile):
        return alone()
    return _asked_first(target, NAMELESS, what, arguments, lambda _: None, alone)


def _guessed(source: str, state: str) -> KeptOptions:
    """The options of a run whose version did not keep them: the tables that it follows, held ones included."""
    standings = source_module(source).table_standings(state)
    known = [table for table, standing in standings.items() if standing.state is not State.LEFT_OUT]
    return KeptOptions(Selection(tuple(glob.escape(str(table)) for table in known)), include_keyless=True)


def serve_jobs(pipeline: Pipeline, source: str, target: str, options: Options) -> None:
    """Let other processes have jobs done by a pipeline, for as long as it runs (`have_done`)."""

    path = own_socket(target, options.name)  # before anything is made

    def answer(what: str, arguments: Values, progress: Progress) -> Values:
        with closing(make_observer(source, options)) as observer:
            return _do(what, pipeline, observer, arguments, progress)

    def listen() -> None:
        while pipeline.is_running and not pipeline.is_open:
            pipeline.rest(0.05)
        while pipeline.is_running:  # once more if somebody has tidied up the folder of sockets
            serve(path, answer, lambda: pipeline.is_running)

    pipeline.companions.append(listen)


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
                "No pipeline is named.",
                hint="Write cdc teardown SOURCE TARGET, or cdc teardown SOURCE --name NAME if the target is gone.",
            )
        Options(name)
        return list(source_module(source).source_removals(source, name, None))
    module, path = target_module(target)
    is_server = module.file_of(path) is None
    known = name_of(source, target, None) if not is_server else name or NAMELESS
    checkpoint = module.read_checkpoint(path, known)
    if checkpoint is None:
        raise UsageError(
            f"{without_password(target)} is not the target of a pipeline{f' named {known!r}' if is_server else ''}.",
            hint="If the target is gone: cdc teardown SOURCE --name NAME",
        )
    if name not in (None, known):
        raise UsageError(
            f"{without_password(target)} belongs to the pipeline {known!r}, not to {name!r}.",
            hint=f"Nothing was removed. Leave --name out, or name the target of {name!r}.",
        )
    state = checkpoint.state if kind_of(source) == JOURNAL else source_state(checkpoint.state)
    on_source = source_module(source).source_removals(source, known_as(source, target, known), state)
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
    ours = database_module(source).digest_tables(source, selection)
    module, path = target_module(target)
    if not isinstance(module, HoldsTables):
        raise UsageError(
            f"{without_password(target)} holds events, not tables: it cannot be compared.",
            hint="Compare a DuckDB target.",
        )
    theirs = module.table_digests(path, kind_of(source), list(ours))
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
    module = source_module(source)
    if not isinstance(module, TwiceRead):
        raise UsageError("There is no second decoder for this log.", hint="There is one for mysql:// and mariadb://.")
    return module.compare_log(source, selection, file)
