"""A file or folder itself: somebody may remove what has its name, or replace it, under who has it open."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cdc.errors import TargetGone


@dataclass(frozen=True, slots=True)
class Inode:
    """What a path led to when it was opened.

    Attributes:
        path: its name.
        device, number: what the file system knows it by.
    """

    path: Path
    device: int
    number: int

    @classmethod
    def at(cls, path: Path) -> Self:
        """What a path leads to now."""
        found = path.stat()
        return cls(path, found.st_dev, found.st_ino)

    def verify(self) -> None:
        """Make sure that the name still leads there.

        What is written on goes into a file without a name otherwise, which is gone with the process (O9).

        Raises:
            TargetGone: it leads nowhere, or to another file.
        """
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise self._gone(f"cannot be found any more ({error.strerror})") from error
        if (found.st_dev, found.st_ino) != (self.device, self.number):
            raise self._gone("is another file now")

    def _gone(self, how: str) -> TargetGone:
        return TargetGone(
            f"{self.path} {how}, while it was being written.",
            hint="Put back the file that was there, and start again. With another file, `cdc run SOURCE TARGET` says "
            "whether the source still has the log since then.",
        )
