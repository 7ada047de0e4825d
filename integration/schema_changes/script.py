"""What one schema goes through: tables that are there before the first copy, then statements."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from integration.schema_changes.servers import Refused, Session


class Work(Protocol):
    """Statements, one after the other."""

    def next(self, session: Session) -> str | None:
        """The next one, made for what is there now; None after the last."""
        ...


@dataclass(frozen=True, slots=True)
class Script:
    """Fixed statements. `{schema}` stands for the schema's name, `{other}` for that of one that is not followed.

    Attributes:
        name: of what was wrong once, or of the seed that made it.
        servers: kinds of servers that it is for.
        since: the oldest version of PostgreSQL that takes it.
    """

    name: str
    servers: tuple[str, ...]
    setup: tuple[str, ...]
    statements: tuple[str, ...]
    since: tuple[int, int] = (0, 0)

    def with_statements(self, statements: tuple[str, ...]) -> Script:
        """The same with other statements."""
        return replace(self, statements=statements)

    def begin(self) -> Work:
        """The script from its start."""
        return _Fixed(list(self.statements))


class _Fixed:
    def __init__(self, left: list[str]) -> None:
        self._left = left

    def next(self, session: Session) -> str | None:
        return self._left.pop(0) if self._left else None


class Group:
    """One schema in a round: where it is, what it does, and what the server has taken of that."""

    def __init__(self, name: str, session: Session, setup: tuple[str, ...], work: Work) -> None:
        self.name = name
        self.session = session
        self.setup = setup
        self.work = work
        self.taken: list[str] = []
        self.refused: list[tuple[str, str]] = []

    def prepare(self) -> None:
        """Make what is there before the first copy; raises Refused, which is a mistake of the script."""
        for statement in self.setup:
            self.session.run(self._named(statement))

    def step(self) -> bool:
        """Run the next statement, which the server may refuse; whether there was one."""
        statement = self.work.next(self.session)
        if statement is None:
            self.session.let_go()
            return False
        try:
            self.session.run(self._named(statement))
            self.taken.append(statement)
        except Refused as error:
            self.refused.append((statement, str(error)))
        return True

    @property
    def replayable(self) -> Script:
        """What the server has taken, as a script."""
        return Script(self.name, (), self.setup, tuple(self.taken))

    def close(self) -> None:
        self.session.close()

    def _named(self, statement: str) -> str:
        schema = self.session.schema
        return statement.replace("{schema}", schema).replace("{other}", f"other_{schema}")


def interleaved(groups: list[Group], rng: random.Random, between: Callable[[], None]) -> None:
    """Run all groups to their end, a statement of one of them at a time; `between` is called after each."""
    left = list(groups)
    while left:
        group = rng.choice(left)
        if not group.step():
            left.remove(group)
        between()
