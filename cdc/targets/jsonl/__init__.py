"""Files of JSON lines: the audit stream of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from cdc.errors import UsageError
from cdc.model.parts import Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.target import TargetSettings
from cdc.targets.jsonl.files import checkpoint_file, lock_file, mapped_errors, nobody_writes, read_saved
from cdc.targets.jsonl.target import JsonLinesTarget

TELLS_NOTES = True  # annotations of transactions are events, too


def target_factory(path: str, settings: TargetSettings) -> Callable[[], JsonLinesTarget]:
    """What opens the target."""
    return lambda: JsonLinesTarget(Path(path), settings)


def read_checkpoint(path: str, _pipeline: str) -> Checkpoint | None:
    """The checkpoint of files that no pipeline has open; raises TargetBusy if one does."""
    file = Path(path)
    with mapped_errors(file), nobody_writes(file):
        saved = read_saved(file)
    return saved.checkpoint if saved is not None else None


def copy_parts(path: str, _pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have tables of files that no pipeline has open told anew, part by part, when one does again."""
    file = Path(path)
    saved = read_saved(file)
    if saved is None:
        raise UsageError(f"{file} is not the target of a pipeline.", hint="`cdc run` makes it one.")
    with closing(JsonLinesTarget(file, TargetSettings("cdc", "", 0, format=saved.format))) as target:
        target.open()
        for schema in schemas:
            target.copy_parts(schema)


def teardown_target(path: str, _pipeline: str) -> list[str]:
    """Remove the state of a pipeline; the lines stay. Says what was removed."""
    file = Path(path)
    with mapped_errors(file), nobody_writes(file):
        there = [place for place in (checkpoint_file(file), lock_file(file)) if place.exists()]
        for place in there:
            place.unlink()
    return [str(place) for place in there]


def digest_tables(path: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """Events have no digest."""
    raise UsageError(f"{path} holds events, not tables: it cannot be compared.", hint="Compare a DuckDB target.")
