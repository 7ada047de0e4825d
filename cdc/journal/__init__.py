"""Journals: what a source said, kept in files, from which any number of targets can be fed and built again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cdc.errors import OperatorNeeded, UsageError
from cdc.journal.folder import Folder
from cdc.journal.observer import held_tables
from cdc.journal.state import JournalState
from cdc.model.moment import Moment
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.selection import Selection
from cdc.model.standing import Standing, State
from cdc.options import KeptOptions
from cdc.removal import Removal
from cdc.source import SourceStatus
from cdc.sources.findings import Finding
from cdc.target import SetApart, TargetAbilities, TargetSettings, takes_all

if TYPE_CHECKING:
    from cdc.journal.source import JournalSource
    from cdc.journal.target import JournalTarget

log = logging.getLogger(__name__)

SCHEME = "journal:"
ABILITIES = TargetAbilities(
    product="a journal",
    keeps="what the source said, from which targets are fed",
    tells_notes=True,
    options=frozenset({"--journal-age", "--journal-size", "--journal-budget"}),
)
set_apart: SetApart = takes_all


def folder_of(dsn: str) -> Folder:
    """The folder of `journal:DIR`."""
    path = dsn.removeprefix(SCHEME)
    if not path:
        raise UsageError("The journal names no folder.", hint="Write it as journal:DIR.")
    return Folder(Path(path))


# --- as a source ----------------------------------------------------------------------------------------------------


def source_factory(
    dsn: str,
    *,
    name: str,
    options: KeptOptions,
    workers: int,
    budget: int,
    notes: bool = False,
    only_looks: bool = False,
    set_apart: SetApart = takes_all,
) -> Callable[[], JournalSource]:
    """What opens the source; raises UsageError. It gives what was recorded, notes included."""
    from cdc.journal.source import JournalSource

    folder = folder_of(dsn)
    return lambda: JournalSource(folder, name, options.selection, budget)


def tail_factory(
    dsn: str, *, slot: str | None, selection: Selection, include_keyless: bool, budget: int, begin: Moment | None = None
) -> Callable[[], JournalSource]:
    """What opens the source from its end on, or from where somebody wants to begin, whom it does not wait for."""
    from cdc.journal.moment import Start, find_start
    from cdc.journal.source import JournalSource

    if slot is not None:
        raise UsageError("A journal has no slots.", hint="Leave --slot out, and write --from.")
    folder = folder_of(dsn)
    folder.read_manifest()
    durable = folder.read_durable()
    at = Start(durable.next if durable is not None else 0) if begin is None else find_start(folder, begin)
    return lambda: JournalSource(folder, "tail", selection, budget, at)


def rebuild_factory(dsn: str, until: str | None, budget: int) -> Callable[[], JournalSource]:
    """What opens all of a journal up to a position or a time; nothing is kept for its target's sake."""
    from cdc.journal.moment import Start, find_end
    from cdc.journal.source import JournalSource

    folder = folder_of(dsn)
    manifest = folder.read_manifest()
    if manifest.first > 0:
        raise OperatorNeeded(f"The journal in {folder.path} no longer has the copy at its beginning.")
    end = None
    if until is not None:
        moment = Moment.parse(until)
        end = find_end(folder, moment)
        log.info("The target gets what the source held as of %s; it ends at %s.", moment, end.position)
    return lambda: JournalSource(folder, "rebuild", Selection(), budget, Start(0), end)


def source_status(dsn: str, name: str, state: str | None, position: Position | None) -> SourceStatus:
    """How much of the journal the target has still to apply."""
    from cdc.journal.inspect import bytes_from
    from cdc.journal.retention import read_readers

    folder = folder_of(dsn)
    manifest, durable = folder.read_manifest(), folder.read_durable()
    end = durable.next if durable is not None else 0
    reader = next((reader for reader in read_readers(folder) if reader.name == name), None)
    begin = JournalState.load(state).next if state is not None else reader.next if reader is not None else None
    lag = bytes_from(folder, begin) if begin is not None else None
    behind = end - begin if begin is not None else end
    is_there = begin is None or manifest.first <= begin <= end
    return SourceStatus(
        kind="journal",
        problem=None if is_there else f"The journal has no record {begin:,} any more, with which the target goes on.",
        lag_bytes=lag,
        has_backlog=behind > 0,
        details={"journal": manifest.journal, "first": manifest.first, "next": end, "records_behind": behind},
        lines={"journal": f"{folder.path}, records {manifest.first:,} to {end:,}, {behind:,} to apply"},
    )


def table_standings(state: str) -> dict[TableName, Standing]:
    """The tables that the target cannot take; of the others a journal does not keep what its records did."""
    return held_tables(state)


def table_names(state: str) -> dict[int, TableName]:
    return {}


def source_removals(dsn: str, name: str, state: str | None) -> list[Removal]:
    """That the journal waits for a target."""
    from cdc.journal.retention import forget_reader, read_readers

    folder = folder_of(dsn)
    gone = [reader for reader in read_readers(folder) if reader.name == name]
    return [
        Removal(
            f"reader {reader.name} ({reader.reader}) of {folder.path}", partial(forget_reader, folder, reader.reader)
        )
        for reader in gone
    ]


def check_source(dsn: str, selection: Selection) -> list[Finding]:
    """Nothing can be wrong with a journal that opening it does not tell."""
    folder_of(dsn).read_manifest()
    return []


def written_by(dsn: str) -> str:
    """The name of the pipeline that a journal is written by."""
    return folder_of(dsn).read_manifest().pipeline


def origin(dsn: str) -> tuple[str, str]:
    """What a journal was made from: the kind of its source, and the database where the tables do not carry it."""
    manifest = folder_of(dsn).read_manifest()
    return manifest.source, manifest.database


# --- as a target ----------------------------------------------------------------------------------------------------


def file_of(path: str) -> Path | None:
    """The folder."""
    return Path(path)


def target_factory(path: str, settings: TargetSettings) -> Callable[[], JournalTarget]:
    """What opens the target."""
    from cdc.journal.target import JournalTarget

    return lambda: JournalTarget(Folder(Path(path)), settings)


def read_checkpoint(path: str, pipeline: str) -> Checkpoint | None:
    """The checkpoint of a journal that nobody writes; raises TargetBusy if somebody does."""
    from cdc.journal.writer import Writer

    folder = Folder(Path(path))
    if not folder.exists:
        return None
    return Writer(folder).look().checkpoint


def read_marks(path: str, pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts; raises TargetBusy if somebody writes the journal."""
    from cdc.journal.writer import Writer

    return dict.fromkeys(Writer(Folder(Path(path))).look().copying, Standing(State.COPYING))


def copy_parts(path: str, pipeline: str, schemas: Iterable[TableSchema]) -> None:
    raise UsageError("The tables of a journal cannot be copied again.", hint="Resync the targets that are fed from it.")


def target_removals(path: str, pipeline: str) -> list[Removal]:
    """Nothing: a journal is data."""
    return []
