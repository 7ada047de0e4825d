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
    _sync_path(folder, os.O_DIRECTORY)


def _sync_path(path: Path | str, kind: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | kind)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it is to be in, with names that last."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


class DurableTree:
    """The files of a folder and of those below it, which somebody else writes, each once, and does not sync.

    What is there already counts as durable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = set(_entries(str(folder)))

    def sync(self) -> None:
        """Make those durable that are new since the last time."""
        found = set(_entries(str(self._folder)))
        new = found - self._known
        for path in sorted(new | {os.path.dirname(path) for path in new}):
            _sync_path(path)
        self._known = found


def _entries(folder: str) -> Iterator[str]:
    """The paths of everything that is below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.path
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)


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
