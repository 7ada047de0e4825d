"""Writing records: appended, synced before anybody relies on them, in files of a bounded size."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Self

from cdc import faults
from cdc.errors import CdcError, JournalDamaged, TargetBusy, TargetGone, UsageError
from cdc.files.disk import meaning
from cdc.files.inode import Inode
from cdc.journal.folder import FORMAT, Durable, FileEntry, Folder, Manifest
from cdc.journal.reader import DataFile, whole_records
from cdc.journal.record import Context, Header, encode
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment

FILE_BYTES = 64 << 20  # after which a file is full
_RESTORE = "Restore it from a backup."


@dataclass(frozen=True, slots=True)
class Summary:
    """What the records of a file are, up to one of them: what becomes its `FileEntry`."""

    records: int = 0
    first_order: int | None = None
    last_order: int | None = None
    first_commit: int | None = None
    last_commit: int | None = None

    def with_record(self, header: Header) -> Summary:
        order, commit = header.order, header.committed_at
        if order is None or commit is None:
            return replace(self, records=self.records + 1)
        is_first = self.first_order is None
        return Summary(
            self.records + 1,
            order[0] if is_first else self.first_order,
            order[-1],
            commit[0] if is_first else self.first_commit,
            commit[-1],
        )


class Writer:
    """Appends segments to a journal. One process at a time (D-17).

    Attributes:
        checkpoint: the last one that is durable, or None.
        copying: tables, by identity, that are copied by parts as of then.
        manifest: what is known of the full files.
    """

    def __init__(
        self, folder: Folder, pipeline: str = "", source: str = "", database: str = "", file_bytes: int = FILE_BYTES
    ) -> None:
        self._folder = folder
        self._pipeline = pipeline
        self._source = source
        self._database = database
        self._file_bytes = file_bytes
        self._lock: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._lease: Inode
        self._inode: Inode | None = None  # of the last file
        self._first = self._next = 0
        self._end = 0  # bytes of the file, durable or not
        self._context = Context()
        self._summary = Summary()
        self.checkpoint: Checkpoint | None = None
        self.copying: set[int] = set()
        self.manifest: Manifest

    def open(self) -> Self:
        """Take the lease, and cut off what a crash left half written.

        Raises:
            TargetBusy: somebody else writes it.
            JournalDamaged: a file is missing, or damaged elsewhere than at its end.
            UsageError: the folder is something else.
        """
        self._take_lease()
        try:
            self._open()
        except OSError as error:
            self.close()
            raise self._unwritable(error) from None
        except BaseException:
            self.close()
            raise
        return self

    def look(self) -> Self:
        """Learn what is durable, and write nothing. It may take seconds, in which somebody may begin to write.

        Raises:
            TargetBusy: somebody writes it, or has begun to.
            JournalDamaged: a file is missing, or damaged elsewhere than at its end.
            UsageError: a file cannot be read.
        """
        try:
            self._refuse_written()
            try:
                self.manifest = self._folder.read_manifest()
                self._find_end()
            finally:  # what was found, damage as well, may have been half of what somebody has just written
                self._refuse_written()
        except OSError as error:
            raise UsageError(f"{self._folder.path} cannot be read: {error.strerror}.") from None
        return self

    def _refuse_written(self) -> None:
        """Raise TargetBusy if somebody writes it."""
        try:
            with suppress(FileNotFoundError):  # of a journal that nobody has written since it was copied here
                self._lock = self._folder.lock.open("rb")
                self._claim(fcntl.LOCK_SH)
        finally:
            self.close()

    def _open(self) -> None:
        if self._folder.exists:
            self.manifest = self._folder.read_manifest()
        else:
            if self._folder.files():
                raise JournalDamaged(f"{self._folder.path} has data files and no manifest.")
            self.manifest = Manifest(FORMAT, str(uuid.uuid4()), self._pipeline, self._source, self._database)
            self._folder.write_manifest(self.manifest)
        self._recover()

    def verify_place(self) -> None:
        """Raise TargetGone if the folder's name, or the last file's, leads elsewhere."""
        self._lease.verify()
        if (inode := self._inode) is not None:
            inode.verify()

    def close(self) -> None:
        """Let go of the lease. May be called twice; what is not durable is cut off by the next writer."""
        for file in (self._file, self._lock):
            if file is not None:
                with suppress(OSError):
                    file.close()
        self._file = self._lock = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.manifest.files) + self._end

    @property
    def next(self) -> int:
        """The number of the record that comes next."""
        return self._next

    def append(self, segment: Segment) -> None:
        """Write a segment; with its checkpoint it is durable, and so is everything before it.

        Raises:
            TargetFull: there is no space for it.
            DiskFailed: it cannot be written otherwise.
        """
        try:
            file = self._file or self._begin_file()
            header, record = encode(segment, self._next, self._context, self.copying)
            file.write(record)
            faults.point("journal.written")
            self._summary = self._summary.with_record(header)
            self._next += 1
            self._end += len(record)
            if segment.checkpoint is None:
                return
            file.flush()
            os.fdatasync(file.fileno())
            faults.point("journal.synced")
            self.checkpoint = segment.checkpoint
            self._folder.write_durable(Durable(self._first, self._end, self._next))
            if self._end >= self._file_bytes:
                self._end_file()
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> CdcError:
        try:
            self.verify_place()
        except TargetGone as gone:
            return gone
        return meaning(error, f"the journal in {self._folder.path}")

    def remove(self, entries: list[FileEntry]) -> None:
        """Remove full files from the begin; the manifest forgets them first."""
        self.manifest = replace(self.manifest, files=self.manifest.files[len(entries) :])
        self._folder.write_manifest(self.manifest)
        for entry in entries:
            self._folder.file(entry.first).unlink(missing_ok=True)

    # --- files ------------------------------------------------------------------------------------------------------

    def _begin_file(self) -> BinaryIO:
        self._first, self._end, self._summary, self._context = self._next, 0, Summary(), Context()
        path = self._folder.file(self._first)
        self._file = path.open("xb")
        self._inode = Inode.at(path)
        self._folder.sync()
        return self._file

    def _end_file(self) -> None:
        assert self._file is not None
        assert self.checkpoint is not None
        self._file.close()
        self._file = self._inode = None
        entry = FileEntry(
            first=self._first,
            records=self._summary.records,
            size=self._end,
            last_position=self.checkpoint.position.text,
            closed_at=time.time(),
            first_order=self._summary.first_order,
            last_order=self._summary.last_order,
            first_commit=self._summary.first_commit,
            last_commit=self._summary.last_commit,
        )
        faults.point("journal.file_full")
        self.manifest = replace(self.manifest, files=(*self.manifest.files, entry))
        self._folder.write_manifest(self.manifest)
        self._end = 0

    def _take_lease(self) -> None:
        path = self._folder.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not self._folder.exists and any(entry.name != "lock" for entry in path.iterdir()):
                raise UsageError(f"{path} is not a journal, and not empty.", hint="Name another folder.")
            self._lock = self._folder.lock.open("ab")
            self._lease = Inode.at(self._folder.lock)
        except OSError as error:
            raise UsageError(f"{path} cannot be a journal: {error.strerror}.") from None
        self._claim(fcntl.LOCK_EX)

    def _claim(self, kind: int) -> None:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise TargetBusy(
                f"Another process writes the journal in {self._folder.path}.", hint="Stop it first."
            ) from None

    # --- after a crash ----------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Go on from the end of what is durable, and remove what is behind it."""
        new = self._find_end()
        for first in new:
            self._take_up(first)
            if first != new[-1]:
                self._end_file()
        for first in self._folder.files():
            if first < self.manifest.first:
                self._folder.file(first).unlink()  # all but the file itself was removed
        if self._file is not None:
            self._file.truncate(self._end)
            os.fsync(self._file.fileno())
        self._folder.write_durable(Durable(self._first, self._end, self._next))  # before there is a data file
        if self._file is None:
            self._end = 0
        elif self._end >= self._file_bytes:
            self._end_file()

    def _find_end(self) -> list[int]:
        """Find the end of what is durable.

        Returns:
            The files that the manifest does not know: two at most, one that was full and the last one.
        """
        full, there = self.manifest.files, self._folder.files()
        for entry in full:
            path = self._folder.file(entry.first)
            if entry.first not in there or path.stat().st_size != entry.size:
                raise JournalDamaged(f"{path} is missing, or has another size than it had.", hint=_RESTORE)
        if full:
            self._next = full[-1].next
            self._scan(full[-1].first)
        new = [first for first in there if first >= self._next]
        for first in new:
            if first != self._next:
                raise JournalDamaged(
                    f"Record {self._next} of the journal in {self._folder.path} is missing.", hint=_RESTORE
                )
            path, end = self._folder.file(first), self._scan(first)
            if first != new[-1] and end != path.stat().st_size:
                raise JournalDamaged(f"{path} is damaged (byte {end:,}).", hint=_RESTORE)
        said = self._folder.last_durable()
        if said is not None and self._next < said.next:
            raise JournalDamaged(
                f"Records {self._next} to {said.next - 1} of the journal in {self._folder.path} were durable, but "
                "they are damaged now.",
                hint=_RESTORE,
            )
        return new

    def _take_up(self, first: int) -> None:
        """Go on with a file that the manifest does not know."""
        path = self._folder.file(first)
        if first != self._first:
            self._scan(first)
        self._file = path.open("r+b")
        self._inode = Inode.at(path)
        self._file.seek(self._end)

    def _scan(self, first: int) -> int:
        """Learn what the records of a file say up to its last checkpoint; where that ends."""
        path = self._folder.file(first)
        file = DataFile(path, path.stat().st_size)
        self._first, self._end, self._summary = first, 0, Summary()
        summary = Summary()
        for found in whole_records(file):
            if found.header.number != first + summary.records:
                raise file.damaged(f"has no record {first + summary.records}", found.begin)
            file.context.take(found.header)
            summary = summary.with_record(found.header)
            if found.header.checkpoint is not None:
                self.checkpoint = Checkpoint(found.header.checkpoint, file.context.state or "")
                self.copying = set(found.header.copying)
                self._end, self._summary = found.end, summary
        self._next = first + self._summary.records
        self._context = Context()
        kept = DataFile(path, self._end)
        for found in whole_records(kept):
            self._context.take(found.header)
        return self._end
