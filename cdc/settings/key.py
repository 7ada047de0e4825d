"""A key of the file, which is an option of `cdc run` under its name without the dashes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Written:
    """A text of a form of its own, such as `30s`.

    Attributes:
        what: a duration, a size, a share.
        pattern: all such texts, as a regular expression for editors.
        example: texts of that form, for people.
        read: reads one, for an option; raises UsageError.
    """

    what: str
    pattern: str
    example: str
    read: Callable[[str, str], object]


@dataclass(frozen=True, slots=True)
class Key:
    """What a key may hold.

    Attributes:
        name: as it stands in the file.
        kind: str, int, float, bool, or list for a list of texts.
        help: what it means, in the words of the option.
        choices: all values that a text may have; empty for any.
        least, most: bounds of a number.
        written: the form of a text, if it has one of its own.
        is_of_process: it stands at the top of the file, for all pipelines of a process.
    """

    name: str
    kind: type
    help: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    written: Written | None = None
    is_of_process: bool = False
