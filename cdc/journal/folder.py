"""A journal's folder: data files in order, what is known of those that are full, and how far the last one is durable.

* `00000000000000000042.arrows`: records, the first of which has that number. Written once, from begin to end.
* `manifest.json`: the journal's identity, and of each full file what it holds. Replaced as a whole when a file is full.
* `durable.json`: in which file the last durable record ends, and where. Written after the data was synced, and not
  synced itself: it tells readers how far they may read, and the writer what must not be missing after a crash.
* `readers/`: how far each target that is fed from here has come.
* `lock`: held by the one who writes.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from cdc.errors import JournalDamaged, UsageError
from cdc.files.durable import replacing, sync, sync_folder
from cdc.model.records import read_record

FORMAT = 1
SUFFIX = ".arrows"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a full file holds.

    Attributes:
        first, records: the number of its first record, and how many there are.
        size: bytes.
        first_order, last_order: those of the first and the last transaction's commit; None without any.
        last_position: as the source writes it, the last checkpoint.
        first_commit, last_commit: microseconds since the Unix epoch; None without any transaction.
        closed_at: seconds since the Unix epoch.
    """

    first: int
    records: int
    size: int
    last_position: str
    closed_at: float
    first_order: int | None = None
    last_order: int | None = None
    first_commit: int | None = None
    last_commit: int | None = None

    @property
    def next(self) -> int:
        """The number of the record after the last one."""
        return self.first + self.records


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a journal without looking into its files.

    Attributes:
        format: `FORMAT`.
        journal: the identity that checkpoints made from it carry.
        pipeline: the name of the one that writes it.
        source: the kind of its source, as its DSN says.
        database: the source's, where its tables do not carry it.
        files: the full ones, in order.
    """

    format: int
    journal: str
    pipeline: str
    source: str
    database: str = ""
    files: tuple[FileEntry, ...] = ()

    @property
    def first(self) -> int:
        """The number of the first record that is still there."""
        return self.files[0].first if self.files else 0

    def holding(self, record: int) -> FileEntry | None:
        """The full file that holds a record, or would if it had not been removed; None if it comes after them."""
        index = bisect_right([entry.first for entry in self.files], record) - 1
        entry = self.files[max(index, 0)] if self.files else None
        return entry if entry is not None and record < entry.next else None


@dataclass(frozen=True, slots=True)
class Durable:
    """Up to where a journal is durable.

    Attributes:
        file: the number of the first record of the last file.
        end: bytes of it that are durable.
        next: the number of the record that comes next.
    """

    file: int
    end: int
    next: int


class Folder:
    """The files of one journal by their names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "lock"
        self.readers = path / "readers"
        self._manifest = path / "manifest.json"
        self._durable = path / "durable.json"

    @property
    def exists(self) -> bool:
        return self._manifest.exists()

    def file(self, first: int) -> Path:
        """The data file whose first record has a number."""
        return self.path / f"{first:020d}{SUFFIX}"

    def files(self) -> list[int]:
        """The numbers that the data files are called after, in order."""
        return sorted(int(name[: -len(SUFFIX)]) for name in os.listdir(self.path) if name.endswith(SUFFIX))

    def read_manifest(self) -> Manifest:
        """Raises UsageError if there is no journal, JournalDamaged if it cannot be read."""
        try:
            manifest = read_record(Manifest, orjson.loads(self._manifest.read_bytes()))
        except FileNotFoundError:
            raise UsageError(
                f"There is no journal in {self.path}.", hint="`cdc run SOURCE journal:DIR` makes one."
            ) from None
        except (OSError, ValueError):
            raise JournalDamaged(f"{self._manifest} cannot be read.", hint="Restore it from a backup.") from None
        if manifest.format != FORMAT:
            raise JournalDamaged(f"{self._manifest} has format {manifest.format}; this version reads {FORMAT}.")
        return manifest

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace it, durably."""
        replace_file(self._manifest, orjson.dumps(asdict(manifest), option=orjson.OPT_INDENT_2))
        self.sync()

    def read_durable(self) -> Durable | None:
        """How far readers may go; None for a journal that has nothing yet.

        Raises:
            JournalDamaged: it is not known, although there are data files.
        """
        found = self.last_durable()
        if found is None and self.files():
            raise JournalDamaged(
                f"{self._durable} is missing or damaged. Without it, the end of the journal is not known.",
                hint=f"The records themselves are in the data files: `cdc journal repair {self.path}` finds their end.",
            )
        return found

    def last_durable(self) -> Durable | None:
        """The same for the writer, who finds it out by himself: None also if the machine went down while it was
        written."""
        try:
            return read_record(Durable, orjson.loads(self._durable.read_bytes()))
        except (OSError, ValueError):
            return None

    def write_durable(self, durable: Durable) -> None:
        """Say how far readers may go; in one step, but not durably."""
        with replacing(self._durable) as file:
            file.write(orjson.dumps(asdict(durable)))

    def sync(self) -> None:
        """Make durable which files there are."""
        sync_folder(self.path)


def replace_file(path: Path, content: bytes) -> None:
    """Give a file another content in one step, durable but for its name's place in the folder."""
    with replacing(path) as file:
        file.write(content)
        sync(file)


def without(manifest: Manifest, removed: Sequence[FileEntry]) -> Manifest:
    """A manifest after files were removed."""
    return replace(manifest, files=tuple(entry for entry in manifest.files if entry not in removed))
