"""What a look at a source found: everything at once, each with its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    FATAL = "fatal"  # replication would not work, or lose something
    WARNING = "warning"  # it works, but somebody should know
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: how bad it is.
        subject: the setting, role or table that it is about.
        message: what is so.
        fix: the SQL or the setting that changes it, where there is one.
    """

    severity: Severity
    subject: str
    message: str
    fix: str | None = None
