"""What there is to know of a journal: its files, how much is where, whether all of it is what was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cdc.errors import JournalDamaged
from cdc.journal.folder import Folder
from cdc.journal.reader import DataFile
from cdc.journal.record import Header


@dataclass(frozen=True, slots=True)
class FileReport:
    """One data file.

    Attributes:
        name: of the file.
        first, records: the number of its first record, and how many there are.
        size: bytes that are durable.
        is_full: nothing will be added to it.
        first_commit, last_commit: of its transactions, in microseconds since the Unix epoch.
        position: of its last checkpoint, as the source writes it.
    """

    name: str
    first: int
    records: int
    size: int
    is_full: bool
    first_commit: int | None
    last_commit: int | None
    position: str | None


def sizes(folder: Folder) -> list[tuple[int, int]]:
    """Each data file, by the number of its first record, with the bytes that are durable."""
    manifest, durable = folder.read_manifest(), folder.read_durable()
    found = [(entry.first, entry.size) for entry in manifest.files]
    if durable is not None and durable.end and durable.file not in {first for first, _ in found}:
        found.append((durable.file, durable.end))
    return found


def bytes_from(folder: Folder, number: int) -> int:
    """Bytes of the records from one on."""
    total = 0
    for first, size in reversed(sizes(folder)):
        total += size
        if first <= number:
            begin = next((at for header, at in headers(folder, first, size) if header.number >= number), size)
            return total - begin
    return total


def headers(folder: Folder, first: int, size: int) -> Iterator[tuple[Header, int]]:
    """The headers of a file, each with the byte where its record begins.

    Raises:
        JournalDamaged: there is something else in it.
    """
    file, at = DataFile(folder.file(first), size), 0
    while at < size:
        found = file.find(at)
        if found is None:
            raise file.damaged("ends in the middle of a record", at)
        yield found.header, at
        at = found.end


def list_files(folder: Folder) -> list[FileReport]:
    """All files, in order. Only the last one is looked into."""
    manifest, reports = folder.read_manifest(), []
    for entry in manifest.files:
        first, last = entry.first_commit, entry.last_commit
        name = folder.file(entry.first).name
        reports.append(FileReport(name, entry.first, entry.records, entry.size, True, first, last, entry.last_position))
    for number, size in sizes(folder)[len(manifest.files) :]:
        found = [header for header, _ in headers(folder, number, size)]
        commits = [commit for header in found for commit in header.committed_at or ()]
        ends = [header.checkpoint.text for header in found if header.checkpoint is not None]
        name = folder.file(number).name
        first, last = (commits[0], commits[-1]) if commits else (None, None)
        reports.append(FileReport(name, number, len(found), size, False, first, last, ends[-1] if ends else None))
    return reports


def verify_files(folder: Folder) -> Iterator[tuple[str, JournalDamaged | None]]:
    """Hold every durable record against its checksum, and decode it: each file with what is wrong, if anything is."""
    expected: int | None = None
    for first, size in sizes(folder):
        name = folder.file(first).name
        try:
            file, at = DataFile(folder.file(first), size), 0
            if expected is not None and first != expected:
                raise file.damaged(f"does not begin with record {expected}", 0)
            expected = first
            while at < size:
                found = file.find(at)
                if found is None or found.header.number != expected:
                    raise file.damaged(f"has no record {expected}", at)
                file.context.take(found.header)
                file.segment(found)
                at, expected = found.end, expected + 1
        except JournalDamaged as error:
            expected = None
            yield name, error
        else:
            yield name, None
