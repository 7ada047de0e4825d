"""The connectors, by what a user writes. They are loaded when they are used, so that a target's packages are needed by
those who use that target only."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import orjson

from cdc import journal
from cdc.errors import UsageError
from cdc.journal.observer import JournalAware, source_state
from cdc.logs import without_password
from cdc.options import MEGABYTE, KeptOptions, Options
from cdc.target import (
    KEEP_ALL,
    HeldAs,
    Publication,
    QueryAnswer,
    QueryWishes,
    SetApart,
    Target,
    TargetAbilities,
    TargetSettings,
    takes_all,
)

JOURNAL = "journal"
SOURCES = {
    "postgresql": "cdc.sources.postgres",
    "postgres": "cdc.sources.postgres",
    "mysql": "cdc.sources.mysql",
    "mariadb": "cdc.sources.mysql",
    JOURNAL: "cdc.journal",
}
TARGETS = {
    "duckdb": "cdc.targets.duckdb",
    "postgresql": "cdc.targets.postgres",
    "postgres": "cdc.targets.postgres",
    "ducklake": "cdc.targets.ducklake",
    "clickhouse": "cdc.targets.clickhouse",
    "jsonl": "cdc.targets.jsonl",
    "kafka": "cdc.targets.kafka",
    JOURNAL: "cdc.journal",
}

# Groups of entry points, by which other packages make theirs known: a name is a scheme, a value is a module.
SOURCES_OF_OTHERS = "cdc.sources"
TARGETS_OF_OTHERS = "cdc.targets"

_TARGET_MEMORY = 256 * MEGABYTE
_ROTATE_BYTES = 256 * MEGABYTE
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SUFFIXES = (".duckdb", ".ddb", ".db")


class SourceKind(Protocol):
    """What a source's package offers. A checkpoint's `state` is the source's own, as the target has it."""

    def source_factory(
        self,
        dsn: str,
        *,
        name: str,
        options: KeptOptions,
        workers: int,
        budget: int,
        notes: bool = False,
        only_looks: bool = False,
        set_apart: SetApart = takes_all,
    ) -> Callable[[], Source]:
        """Check a DSN's form and return what opens the source.

        Args:
            name: of the pipeline.
            options: which tables, and how they are followed.
            workers: sessions that read the snapshot.
            budget: bytes that one segment holds at most.
            notes: the target tells what applications said of their transactions.
            only_looks: tables neither come nor go, and nothing is changed on the source.
            set_apart: what the target says of tables that come.

        Raises:
            UsageError: the DSN is wrong.
        """

    def tail_factory(
        self,
        dsn: str,
        *,
        slot: str | None,
        selection: Selection,
        include_keyless: bool,
        budget: int,
        begin: Moment | None = None,
    ) -> Callable[[], Source]:
        """Check a DSN's form and return what opens a source without a snapshot; raises UsageError."""

    def source_status(self, dsn: str, name: str, state: str | None, position: Position | None) -> SourceStatus:
        """How far the source's log is, and whether it still has what comes after the checkpoint."""

    def table_standings(self, state: str) -> dict[TableName, Standing]:
        """How the tables of the selection stand by a checkpoint's state."""

    def table_names(self, state: str) -> dict[int, TableName]:
        """The tables of a checkpoint's state by their identities."""

    def source_removals(self, dsn: str, name: str, state: str | None) -> list[Removal]:
        """What a pipeline made on the source; raises UsageError if that is not what a checkpoint's state belongs to."""

    def check_source(self, dsn: str, selection: Selection) -> list[Finding]:
        """Everything that would stop replication from here, each with its fix; changes nothing."""


@runtime_checkable
class DatabaseKind(SourceKind, Protocol):
    """What the package of a database offers, which has tables to look at."""

    def database_of(self, dsn: str) -> str:
        """The database that a DSN means, empty for all; raises UsageError."""

    def make_observer(self, dsn: str, *, name: str) -> Observer:
        """Somebody who looks at the source beside a pipeline; connects when he is first asked for something."""

    def digest_tables(self, dsn: str, selection: Selection) -> dict[TableSchema, Digest]:
        """The digest of each table that a pipeline of this selection follows, as they are now."""

    def pipeline_of(self, state: str) -> str:
        """The name of the pipeline that a checkpoint's state belongs to."""

    def kept_options(self, state: str) -> KeptOptions | None:
        """The options of the last run; None if the state is of a version that did not keep them."""


@runtime_checkable
class Measured(Protocol):
    """A source of which anybody can say whether a target has reached a position that the source has written."""

    def position_now(self, dsn: str) -> str:
        """Where the log is: all that somebody sees now was committed up to there."""

    def has_reached(self, checkpoint: Checkpoint, wanted: str) -> bool:
        """Whether everything up to a position lies before a checkpoint, whose state is the source's own.

        Raises:
            UsageError: it is no position of this source.
        """


@runtime_checkable
class TwiceRead(Protocol):
    """A source whose log another decoder reads as well."""

    def compare_log(self, dsn: str, selection: Selection, file: str | None) -> list[Finding]:
        """A file of the log (None for the newest) as two decoders read it; raises UsageError if it is not there."""


@runtime_checkable
class KeepsLog(Protocol):
    """A source on which a pipeline makes what keeps the log for it."""

    def makes(self, name: str, *, keyless: bool) -> list[str]:
        """What a pipeline of this name makes there when it begins, in words; `keyless` if it follows a table without a
        key."""


@runtime_checkable
class TargetKind(Protocol):
    """What a target's package offers. A `place` is what a DSN says after the kind.

    Attributes:
        ABILITIES: what it can do.
        set_apart: which tables cannot be there together.
    """

    ABILITIES: TargetAbilities
    set_apart: SetApart

    def file_of(self, place: str, /) -> Path | None:
        """The file, or the folder, that a place is, beside which a pipeline's status lies; None if it is a server."""

    def target_factory(self, place: str, settings: TargetSettings, /) -> Callable[[], Target]:
        """Check the place's form and return what opens the target; raises UsageError."""

    def read_checkpoint(self, place: str, pipeline: str, /) -> Checkpoint | None:
        """The checkpoint that is there, None if there is no target yet; raises TargetBusy if a process keeps it."""

    def read_marks(self, place: str, pipeline: str, /) -> dict[int, Standing]:
        """The tables, by identity, that are copied by parts or suspect; raises TargetBusy as `read_checkpoint`."""

    def copy_parts(self, place: str, pipeline: str, schemas: Iterable[TableSchema], /) -> None:
        """Have tables copied again, part by part, when the pipeline runs again; raises TargetBusy, UsageError."""

    def target_removals(self, place: str, pipeline: str, /) -> list[Removal]:
        """What a pipeline keeps there beside its tables, which stay."""


@runtime_checkable
class Paced(Protocol):
    """A target in which each commit leaves something behind. It has `--every`.

    Attributes:
        EVERY: seconds between two commits of small changes, if nobody says otherwise.
    """

    EVERY: float


@runtime_checkable
class HoldsTables(Protocol):
    """A target that has tables to compare."""

    def held_as(self, column: Column, source: str, /) -> HeldAs:
        """How it holds the values of a column, of a source of some kind, as long as each has a place there."""

    def table_digests(
        self, place: str, source: str, schemas: Iterable[TableSchema], /
    ) -> dict[TableSchema, Digest | None]:
        """The digest of each table from a source of some kind; None for a table that is not there."""


@runtime_checkable
class KeepsHistories(Protocol):
    """A target that may know what rows were."""

    def open_histories(self, place: str, /) -> AbstractContextManager[Any]:
        """What answers questions about the past; raises UsageError if no table is kept so."""


@runtime_checkable
class Answers(Protocol):
    """A target that this program can ask in SQL."""

    def query(self, place: str, wishes: QueryWishes, /) -> QueryAnswer:
        """Answer a question; raises TargetBusy if a pipeline has the target to itself, UsageError."""


@runtime_checkable
class OneFile(Protocol):
    """A target that is one file, of which a copy is a backup."""

    def back_up(self, place: str, to: Path, /) -> Checkpoint | None:
        """Make a copy of a file that no pipeline has open; what checkpoint it has. Raises TargetBusy if one does."""


@runtime_checkable
class Publishes(Protocol):
    """A target that is one file, of which other processes read a copy. It has `--publish`."""

    def make_publication(self, place: str, to: Path, /) -> Publication:
        """The copy; nothing is looked at yet."""


if TYPE_CHECKING:
    from cdc.model.moment import Moment
    from cdc.model.parts import Digest
    from cdc.model.position import Checkpoint, Position
    from cdc.model.schema import Column, TableName, TableSchema
    from cdc.model.selection import Selection
    from cdc.model.standing import Standing
    from cdc.observer import Observer
    from cdc.removal import Removal
    from cdc.source import Source, SourceStatus

    # Each package is held against what is asked of it.
    from cdc.sources import mysql, postgres
    from cdc.sources.findings import Finding
    from cdc.targets import clickhouse, duckdb, ducklake, jsonl, kafka
    from cdc.targets import postgres as postgres_tables

    _databases: tuple[DatabaseKind, ...] = (mysql, postgres)
    _twice_read: TwiceRead = mysql
    _measured: tuple[Measured, ...] = (mysql, postgres)
    _keeps_log: KeepsLog = postgres
    _recorded: SourceKind = journal
    _targets: tuple[TargetKind, ...] = (duckdb, ducklake, postgres_tables, clickhouse, jsonl, kafka, journal)
    _holds_tables: tuple[HoldsTables, ...] = (duckdb, ducklake, postgres_tables, clickhouse)
    _paced: Paced = ducklake
    _keeps_histories: tuple[KeepsHistories, ...] = (duckdb, ducklake, postgres_tables, clickhouse)
    _answers: tuple[Answers, ...] = (duckdb, ducklake)
    _one_file: OneFile = duckdb
    _publishes: Publishes = duckdb


def source_module(dsn: str) -> SourceKind:
    """The connector for a source DSN: its control plane as well as its data plane."""
    scheme = kind_of(dsn)
    if (module := _module(scheme, SOURCES, SOURCES_OF_OTHERS)) is None:
        raise UsageError(
            f"{scheme!r} is not a source that cdc knows." if scheme else "The source is not a DSN.",
            hint="Write it as postgresql://user@host:5432/database, mysql://user@host/database, mariadb://... or "
            "journal:DIR.",
        )
    if scheme != JOURNAL and not isinstance(module, DatabaseKind):
        raise _incomplete(scheme, "source", "DatabaseKind")
    return cast("SourceKind", module)


def database_module(dsn: str) -> DatabaseKind:
    """The connector for a source that has tables to look at.

    Raises:
        UsageError: it is a journal, or none that cdc knows.
    """
    if kind_of(dsn) == JOURNAL:
        raise UsageError(f"{dsn} has no tables to look at.", hint="Name the database that it was made from.")
    return cast("DatabaseKind", source_module(dsn))


def position_now(source: str) -> str:
    """Where a source's log is: all that somebody sees now was committed up to there."""
    module = database_module(source)
    if not isinstance(module, Measured):
        raise UsageError(
            f"The source {without_password(source)} does not give its current position.",
            hint="Name the position: --for POSITION.",
        )
    return module.position_now(source)


def has_reached(checkpoint: Checkpoint, wanted: str) -> bool:
    """Whether everything up to a position, as a source writes it, lies before the checkpoint of a target.

    Raises:
        UsageError: it is no position of the source that the checkpoint is of.
    """
    state, module = _of_state(checkpoint.state)
    if not isinstance(module, Measured):
        raise UsageError("cdc cannot compare positions of this source.")
    return module.has_reached(replace(checkpoint, state=state), wanted)


def table_standings(state: str) -> Iterable[Standing]:
    """How the tables stand by the state of a target's checkpoint, whatever source it is of."""
    state, module = _of_state(state)
    return module.table_standings(state).values()


def _of_state(state: str) -> tuple[str, SourceKind]:
    """The state of the source itself, and the connector that has written it."""
    state = source_state(state)
    scheme = str(orjson.loads(state).get("source"))
    if (module := _module(scheme, SOURCES, SOURCES_OF_OTHERS)) is None:
        raise UsageError(f"The target is of a source {scheme!r}, which cdc does not know.")
    return state, cast("SourceKind", module)


def kind_of(source: str) -> str:
    """What a source is by its DSN's scheme; empty if it has none."""
    if source.startswith(f"{JOURNAL}:"):
        return JOURNAL
    return source.partition("://")[0] if "://" in source else ""


def target_module(target: str) -> tuple[TargetKind, str]:
    """The connector for a target, and what it is to open: `duckdb:FILE`, or a file that is named like one."""
    scheme, colon, rest = target.partition(":")
    if colon and (module := _module(scheme, TARGETS, TARGETS_OF_OTHERS)) is not None:
        if not isinstance(module, TargetKind):
            raise _incomplete(scheme, "target", "TargetKind")
        if not rest:
            raise UsageError("The target names no file.", hint=f"Write it as {scheme}:FILE.")
        return module, rest
    if target.endswith(_SUFFIXES) and not _OTHER_SCHEME.match(target):
        return target_kind("duckdb"), target
    raise UsageError(
        f"{without_password(target)!r} is not a target that cdc knows.",
        hint="Write it as duckdb:FILE, ducklake:FILE, postgresql://HOST/DATABASE, clickhouse://HOST, jsonl:FILE, "
        "kafka://HOST:9092 or journal:DIR.",
    )


def target_kind(scheme: str) -> TargetKind:
    """The connector of a kind of target that there is (`target_kinds`)."""
    return cast("TargetKind", _module(scheme, TARGETS, TARGETS_OF_OTHERS))


def target_kinds() -> dict[str, list[str]]:
    """The kinds of target that there are, each with the schemes by which it is known, of which one names it."""
    modules: dict[str, list[str]] = {}
    for scheme, module in TARGETS.items():
        modules.setdefault(module, []).append(scheme)
    others = {point.name for point in importlib.metadata.entry_points(group=TARGETS_OF_OTHERS)} - TARGETS.keys()
    return {schemes[0]: schemes for schemes in [*modules.values(), *([name] for name in sorted(others))]}


def _incomplete(scheme: str, what: str, kind: str) -> UsageError:
    """Of a module of another package: a misspelt function would otherwise be found missing while rows are moved."""
    return UsageError(
        f"The package for {scheme}: does not offer everything that a {what} needs.",
        hint=f"Try a newer version of it. Its author finds what is missing in cdc/connectors.py, at {kind}.",
    )


def _module(scheme: str, own: Mapping[str, str], group: str) -> object | None:
    """The module of a scheme: one of this program, or else one that an installed package has made known."""
    if scheme in own:
        return importlib.import_module(own[scheme])
    for point in importlib.metadata.entry_points(group=group, name=scheme):
        return cast("object", point.load())
    return None


def source_factory(
    dsn: str, target: str, options: Options, *, notes: bool = False, set_apart: SetApart = takes_all
) -> Callable[[], Source]:
    """What opens a source.

    Args:
        notes: the target tells what applications said of their transactions.
        set_apart: what the target says of tables that come.
    """
    return source_module(dsn).source_factory(
        dsn,
        name=known_as(dsn, target, options.name),
        options=options.kept,
        workers=options.workers,
        budget=options.segment_bytes,
        notes=notes,
        only_looks=options.only_looks,
        set_apart=set_apart,
    )


def target_factory(source: str, target: str, options: Options) -> Callable[[], Target]:
    module, path = target_module(target)
    refuse_options([target], options)
    module.ABILITIES.refuse_mode(options.mode)
    if kind_of(source) == JOURNAL == target.partition(":")[0]:
        raise UsageError("A journal cannot be made from a journal.", hint="Copy its folder while nobody writes it.")
    kind, database = origin_of(source)
    settings = TargetSettings(
        options.name,
        kind,
        options.target_memory or _TARGET_MEMORY,
        mode=options.mode,
        keys=options.keys,
        retention=options.retention,
        database=database,
        format=options.format,
        rotate=options.rotate_bytes or _ROTATE_BYTES,
    )
    return module.target_factory(path, settings)


def every(target: str, options: Options) -> float:
    """Seconds between two commits of small changes, at least."""
    module, _ = target_module(target)
    if options.every is not None:
        return options.every
    return module.EVERY if isinstance(module, Paced) else 0.0


# What only some kinds of target have: each says so in its abilities.
OPTIONS_OF_TARGETS: Mapping[str, Callable[[Options], object]] = {
    "--mode": lambda options: options.mode,
    "--keys": lambda options: options.keys,
    "--memory": lambda options: options.target_memory,
    "--format": lambda options: options.format,
    "--rotate": lambda options: options.rotate_bytes,
    "--every": lambda options: options.every,
    "--publish": lambda options: options.publish,
    "--journal-age": lambda options: options.retention.age,
    "--journal-size": lambda options: options.retention.size,
    "--journal-budget": lambda options: options.retention.budget,
}


def refuse_options(targets: Iterable[str], options: Options) -> None:
    """Refuse options that none of the targets has (O34)."""
    known = {target: target_module(target)[0].ABILITIES.options for target in targets}
    for option, given in OPTIONS_OF_TARGETS.items():
        if given(options) is not None and not any(option in has for has in known.values()):
            has = "; ".join(
                f"{without_password(target)} has {', '.join(sorted(options))}" for target, options in known.items()
            )
            named = " and ".join(map(without_password, known))
            raise UsageError(f"{named} cannot use {option}.", hint=f"{has}.")


def fitting(options: Options, target: str) -> Options:
    """The options without those that a target does not have, but another one that is fed beside it."""
    has = target_module(target)[0].ABILITIES.options
    return replace(
        options,
        mode=options.mode if "--mode" in has else None,
        keys=options.keys if "--keys" in has else None,
        target_memory=options.target_memory if "--memory" in has else None,
        format=options.format if "--format" in has else None,
        rotate_bytes=options.rotate_bytes if "--rotate" in has else None,
        every=options.every if "--every" in has else None,
        publish=options.publish if "--publish" in has else None,
        retention=options.retention if "--journal-size" in has else KEEP_ALL,
    )


def make_observer(source: str, options: Options) -> Observer:
    """Somebody who looks at the source beside a pipeline; connects when he is first asked for something."""
    return JournalAware(database_module(source).make_observer(source, name=options.name))


def known_as(source: str, target: str | None, name: str) -> str:
    """What a source knows a pipeline by: its name, or for a journal, which feeds many, the target's."""
    return target if kind_of(source) == JOURNAL and target is not None else name


def origin_of(source: str) -> tuple[str, str]:
    """The kind of the database that a source's events come from, and its name, as `TargetSettings` has them."""
    if kind_of(source) == JOURNAL:
        return journal.origin(source)
    return kind_of(source), database_module(source).database_of(source)
