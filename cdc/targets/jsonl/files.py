"""Files that only ever grow, and the checkpoint beside them that says up to where they count.

audit.jsonl             the first lines
audit.jsonl.000001      the lines after those, and so on: names in the order of their lines
audit.jsonl.checkpoint  the last of the files, and how many bytes of it count
audit.jsonl.lock        held by the process that writes
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import orjson

from cdc import faults
from cdc.errors import CheckpointUnreadable, TargetBusy, TargetDrift, UsageError
from cdc.files.disk import mapped_errors
from cdc.files.durable import replacing, sync, sync_folder
from cdc.files.inode import Inode
from cdc.model.position import Checkpoint, Position
from cdc.model.records import read_record

VERSION = 1
_NUMBER = re.compile(r"\.(\d{6,})")


@dataclass(frozen=True, slots=True)
class Saved:
    """What the checkpoint file holds.

    Attributes:
        version: of this form.
        format: of the lines.
        number: of the last file.
        length: bytes of it that count.
        order, position, state: the source's checkpoint; None before there is one.
        copying: tables, by identity, that are copied part by part.
        shapes: by table identity, which shape was emitted last (`cdc.formats.Shapes`).
    """

    version: int
    format: str
    number: int = 0
    length: int = 0
    order: int | None = None
    position: str | None = None
    state: str | None = None
    copying: tuple[int, ...] = ()
    shapes: dict[int, str] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """As a source reads it."""
        if self.order is None or self.position is None or self.state is None:
            return None
        return Checkpoint(Position(self.order, self.position), self.state)


class Files:
    """The files of one target, open for writing.

    Args:
        limit: bytes after which the next lines go into another file.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._lock: int | None = None
        self._file: BinaryIO | None = None
        self._inode: Inode  # of that file
        self._number = 0
        self._length = 0

    def open(self, format_name: str | None) -> Saved:
        """Take the lease, and cut off whatever was written after the last checkpoint.

        Args:
            format_name: of the lines; None for as they are, in new files JSON.

        Raises:
            TargetBusy: another process writes to these files.
            TargetDrift: they are shorter than they were.
            UsageError: they are somebody else's, or of another format.
        """
        try:
            with mapped_errors(self._path):
                self._lock = _take_lock(self._path, fcntl.LOCK_EX)
                faults.point("target.opened")
                saved = read_saved(self._path) or self._begin(format_name or "json")
                if format_name is not None and saved.format != format_name:
                    raise UsageError(
                        f"{self._path} holds events as {saved.format}, not as {format_name}.",
                        hint="Give the same --format as before, or name another file.",
                    )
                self._cut(saved)
        except BaseException:
            self.close()
            raise
        return saved

    def _begin(self, format_name: str) -> Saved:
        """Mark a new file as ours before there is a line in it."""
        if self._path.exists() and self._path.stat().st_size:
            raise UsageError(f"{self._path} has content that no pipeline wrote.", hint="Name another file.")
        self._path.touch()
        faults.point("target.before_state")
        saved = Saved(VERSION, format_name)
        self._put(saved)
        return saved

    def _cut(self, saved: Saved) -> None:
        """Bring the files to where the checkpoint says that they end."""
        for later in _later(self._path, saved.number):
            later.unlink()
        last = self._named(saved.number)
        found = last.stat().st_size if last.exists() else 0
        if found < saved.length:
            raise TargetDrift(
                f"{last} has {found} bytes, of which {saved.length} were written before.",
                hint="Put it back as it was, or begin with another file. Only earlier files may be moved.",
            )
        self._number, self._length = saved.number, saved.length
        file = self._file = last.open("ab")
        self._inode = Inode.at(last)
        if found > saved.length:
            file.truncate(saved.length)
            sync(file)

    def write(self, lines: memoryview) -> None:
        """Put lines behind the others; they count with the next checkpoint."""
        if not len(lines):
            return
        with mapped_errors(self._path):
            if self._length >= self._limit:
                self._begin_next()
            assert self._file is not None
            self._file.write(lines)
            self._length += len(lines)

    def _begin_next(self) -> None:
        assert self._file is not None
        sync(self._file)
        self._file.close()
        self._number, self._length = self._number + 1, 0
        self._file = self._named(self._number).open("xb")
        self._inode = Inode.at(self._named(self._number))

    def verify_place(self) -> None:
        """Raise TargetGone if the last file's name leads elsewhere."""
        self._inode.verify()

    def save(self, saved: Saved) -> None:
        """Make everything that was written durable, and after it the checkpoint (D-23)."""
        with mapped_errors(self._path):
            assert self._file is not None
            faults.point("target.before_checkpoint")
            sync(self._file)
            self._put(replace(saved, number=self._number, length=self._length))

    def _put(self, saved: Saved) -> None:
        """Replace the checkpoint in one step."""
        with replacing(checkpoint_file(self._path)) as file:
            file.write(orjson.dumps(asdict(saved), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS))
            sync(file)
            faults.point("target.before_commit")
        sync_folder(self._path.parent)
        faults.point("target.after_commit")

    def close(self) -> None:
        """Let go of the lease. What does not count yet is cut off when the files are opened again."""
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # of a disk that is full; the lines do not count
                file.close()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            os.close(lock)

    def _named(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number:06d}") if number else self._path


def checkpoint_file(path: Path) -> Path:
    """Where the checkpoint of a target's files is."""
    return path.with_name(path.name + ".checkpoint")


def lock_file(path: Path) -> Path:
    """What a process that writes holds."""
    return path.with_name(path.name + ".lock")


def read_saved(path: Path) -> Saved | None:
    """The checkpoint of a target's files; None if there is none.

    Raises:
        CheckpointUnreadable: it is of another version, or damaged.
    """
    place = checkpoint_file(path)
    if not place.exists():
        return None
    content = place.read_bytes()
    try:
        saved = read_record(Saved, orjson.loads(content))
    except ValueError as error:
        raise CheckpointUnreadable(
            f"{place} is damaged, or of another version of cdc.", hint="Use the version that wrote it."
        ) from error
    if saved.version != VERSION:
        raise CheckpointUnreadable(
            f"{place} has format {saved.version}; this version of cdc writes {VERSION}.",
            hint="Use the version of cdc that wrote it, or a newer one.",
        )
    return saved


@contextmanager
def nobody_writes(path: Path) -> Iterator[None]:
    """Make sure of it for a moment; raises TargetBusy."""
    if not lock_file(path).exists():
        yield
        return
    lock = _take_lock(path, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(lock)


def _take_lock(path: Path, kind: int) -> int:
    lock = os.open(lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise TargetBusy(
            f"{path} is written by another process.", hint="One target, one pipeline: stop the other one."
        ) from error
    return lock


def _later(path: Path, number: int) -> list[Path]:
    """The files after the one with a number."""
    return [
        file
        for file in path.parent.iterdir()
        if file.name.startswith(path.name)
        and (found := _NUMBER.fullmatch(file.name.removeprefix(path.name)))
        and int(found[1]) > number
    ]
