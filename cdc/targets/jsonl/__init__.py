"""Files of JSON lines: the audit stream of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

from cdc.errors import UsageError
from cdc.files.disk import mapped_errors
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.standing import Standing, State
from cdc.removal import Removal
from cdc.target import SetApart, TargetAbilities, TargetSettings, takes_all
from cdc.targets.jsonl.files import checkpoint_file, lock_file, nobody_writes, read_saved
from cdc.targets.jsonl.target import JsonLinesTarget

ABILITIES = TargetAbilities(
    product="JSON lines",
    keeps="events",
    is_atomic=False,  # a reader may find the first lines of a transaction
    tells_notes=True,
    options=frozenset({"--format", "--rotate"}),
)
set_apart: SetApart = takes_all


def file_of(path: str) -> Path | None:
    """The first of the files."""
    return Path(path)


def target_factory(path: str, settings: TargetSettings) -> Callable[[], JsonLinesTarget]:
    """What opens the target."""
    return lambda: JsonLinesTarget(Path(path), settings)


def read_checkpoint(path: str, _pipeline: str) -> Checkpoint | None:
    """The checkpoint of files that no pipeline has open; raises TargetBusy if one does."""
    file = Path(path)
    with mapped_errors(file), nobody_writes(file):
        saved = read_saved(file)
    return saved.checkpoint if saved is not None else None


def read_marks(path: str, _pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts."""
    saved = read_saved(Path(path))
    return dict.fromkeys(saved.copying, Standing(State.COPYING)) if saved is not None else {}


def copy_parts(path: str, _pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have tables of files that no pipeline has open emitted again, part by part, when one does again."""
    file = Path(path)
    saved = read_saved(file)
    if saved is None:
        raise UsageError(f"{file} is not the target of a pipeline.", hint="`cdc run SOURCE TARGET` makes it one.")
    with closing(JsonLinesTarget(file, TargetSettings("cdc", "", 0))) as target:
        target.open()
        for schema in schemas:
            target.copy_parts(schema)


def target_removals(path: str, _pipeline: str) -> list[Removal]:
    """The state of a pipeline beside the lines, which stay."""
    places = [checkpoint_file(Path(path)), lock_file(Path(path))]
    return [Removal(str(place), partial(_remove, place)) for place in places if place.exists()]


def _remove(place: Path) -> None:
    with mapped_errors(place):
        place.unlink(missing_ok=True)
