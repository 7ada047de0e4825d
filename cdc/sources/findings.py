"""What a look at a source found: everything at once, each with its remedy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cdc.model.schema import TableName, TableSchema


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


def name_clashes(schemas: Iterable[TableSchema]) -> Iterator[Finding]:
    """Names that differ in case alone are one to a target that does not see case (E-06, E-07)."""
    spellings: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for schema in schemas:
        table = schema.table
        spellings[(table.schema.lower(),)].add((table.schema,))
        spellings[(table.schema.lower(), table.name.lower())].add((table.schema, table.name))
        columns: dict[str, list[str]] = defaultdict(list)
        for column in schema.columns:
            columns[column.name.lower()].append(column.name)
        for same in columns.values():
            if len(same) > 1:
                listed = ", ".join(same)
                yield _for_duckdb(str(table), f"Columns {listed} differ in case only")
    for path, names in spellings.items():
        if len(names) > 1:
            what = "schemas" if len(path) == 1 else "tables"
            listed = ", ".join(str(TableName(*name)) if len(name) == 2 else name[0] for name in sorted(names))
            yield _for_duckdb(listed, f"These {what} differ in case only")


def _for_duckdb(subject: str, what: str) -> Finding:
    return Finding(
        Severity.WARNING,
        subject,
        f"{what}, which DuckDB ignores: such a target refuses them, all others take them.",
        "--exclude leaves one of them out.",
    )
