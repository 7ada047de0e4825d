"""Files that are put in the place of others in one step, and names that outlive a loss of power."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that takes the place of another one when this ends well.

    Meanwhile it is called `PATH.new`. What has that name before is removed: it may be a link that somebody else has put
    there, through which another file would be written (O21).

    Args:
        mode: who may read it.
    """
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, mode), "wb") as file:
        yield file
    new.replace(path)


def sync(file: BinaryIO) -> None:
    """Make durable what has been written into a file."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DurableNames:
    """The names of files that somebody else makes, removes and makes again, and of which he syncs the content alone."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._known = [(0, 0)] * len(files)

    def sync(self) -> None:
        """Make those durable that are new since the last time (O23)."""
        found = [_inode_and_size(file) for file in self._files]
        # A file that is shorter than before may be another one with the number of the one before.
        if any(now != was or size < before for (now, size), (was, before) in zip(found, self._known, strict=True)):
            for folder in {file.parent for file in self._files}:
                sync_folder(folder)
        self._known = found


def _inode_and_size(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_size
