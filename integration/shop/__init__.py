"""The schema of a web shop as an application has it, with rows, its daily work and its migrations."""

from __future__ import annotations

import re
from pathlib import Path

_HERE = Path(__file__).parent


class Shop:
    """Texts for one kind of server, each to be sent by itself.

    Attributes:
        schema: makes all tables.
        rows: fills them, and adds more each time that it is run.
        work: what the application does all day; can be run again and again, after each of the migrations too.
        migrations: changes of the schema, in their order.
    """

    def __init__(self, kind: str) -> None:
        family = "postgres" if kind == "postgresql" else "mysql"
        # PostgreSQL takes several statements in one text, with functions that have semicolons in them.
        whole, steps = (r"\Z", r"\n\s*\n") if family == "postgres" else (r";\n", r";\n")
        self.schema = _texts(f"{family}.sql", whole)
        self.rows = _texts(f"{family}_rows.sql", whole)
        self.work = _texts(f"{family}_work.sql", steps)
        self.migrations = _texts(f"{family}_migrations.sql", steps)


def _texts(file: str, between: str) -> list[str]:
    parts = re.split(between, (_HERE / file).read_text())
    return [part.strip() for part in parts if re.sub(r"--.*", "", part).strip()]
