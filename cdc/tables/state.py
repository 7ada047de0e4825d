"""What this program keeps in a target beside the data: the checkpoint, and which tables are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cdc import faults
from cdc.errors import CheckpointUnreadable, TargetBusy, UsageError
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName
from cdc.model.standing import Standing, State, Suspicion
from cdc.tables.failures import Failing
from cdc.tables.owned import OwnedTables
from cdc.target import Mode

SCHEMA = "_cdc"
FORMAT = 1

_CREATE = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.checkpoint (format INTEGER, sequence BIGINT, position_order UBIGINT, "
    "position VARCHAR, state VARCHAR, applied_at TIMESTAMPTZ)",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.tables (identity BIGINT, schema_name VARCHAR, table_name VARCHAR)",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.copying (identity BIGINT)",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.suspect (identity BIGINT, reason VARCHAR, number BIGINT)",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.apart (identity BIGINT, state VARCHAR, reason VARCHAR)",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.mode (mode VARCHAR)",
)
_COMMITTED_AT = f"ALTER TABLE {SCHEMA}.checkpoint ADD COLUMN committed_at TIMESTAMPTZ"
FRESHNESS = TableName(SCHEMA, "freshness")
# What people may ask (docs/reading.md). A view: it costs nothing until somebody asks, and is as of the same commit as
# the rows.
_FRESHNESS = f"""
CREATE OR REPLACE VIEW {SCHEMA}.freshness AS
SELECT t.schema_name, t.table_name,
    CASE WHEN c.identity IS NOT NULL THEN '{State.COPYING}' WHEN a.identity IS NOT NULL THEN a.state
        WHEN s.identity IS NOT NULL THEN '{State.SUSPECT}' ELSE '{State.FOLLOWING}' END AS state,
    CASE WHEN c.identity IS NOT NULL THEN '' ELSE coalesce(a.reason, s.reason, '') END AS reason,
    p.position, p.committed_at, p.applied_at
FROM {SCHEMA}.tables AS t CROSS JOIN {SCHEMA}.checkpoint AS p
LEFT JOIN {SCHEMA}.copying AS c ON c.identity = t.identity
LEFT JOIN {SCHEMA}.apart AS a ON a.identity = t.identity
LEFT JOIN {SCHEMA}.suspect AS s ON s.identity = t.identity
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Stored:
    """The checkpoint as it is in the target.

    Attributes:
        checkpoint: None before the first.
        sequence: how often it was written; a writer names the number that he saw, so that one who was overtaken is
            found out (D-17).
    """

    checkpoint: Checkpoint | None
    sequence: int


class Asked(Failing, Protocol):
    """A database that holds state tables. It takes texts in DuckDB's words with `?` for values, which need nothing that
    makes statements."""

    def open(self) -> None:
        """Take the lease; raises TargetBusy, UsageError."""

    def close(self) -> None:
        """Let go of it."""

    def columns(self, table: TableName) -> Mapping[str, str]:
        """Names and types of a table's columns, or a view's; empty if there is no such table."""

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement; how many rows it changed."""

    def ask(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""


class KeptState(Protocol):
    """What a pipeline keeps beside its tables. Nothing here commits."""

    def open(self) -> Checkpoint | None:
        """Make what is missing, and read the checkpoint; raises CheckpointUnreadable if it is of another format."""

    @property
    def position(self) -> Position | None:
        """That of the checkpoint."""

    def write(self, checkpoint: Checkpoint, committed_at: int | None) -> None:
        """Put a checkpoint in the place of the last one.

        Args:
            committed_at: when its last transaction was committed, in microseconds since the Unix epoch; None if no
                transaction has come since the checkpoint before.

        Raises:
            TargetBusy: another pipeline wrote one meanwhile.
        """

    def take_mode(self, wanted: Mode | None) -> Mode:
        """The mode that the tables are kept in; raises UsageError if it is another one than is wanted."""

    def owned(self) -> OwnedTables:
        """The tables that this pipeline made."""

    def own(self, identity: int, table: TableName, *, is_known: bool) -> None:
        """Remember a table as made by this pipeline, under the name that it has now."""

    def copying(self) -> set[int]:
        """The tables, by identity, that are copied part by part."""

    def copy_parts(self, identity: int) -> None:
        """Remember that a table is copied part by part."""

    def copied(self, identity: int) -> None:
        """Forget it: the copy is complete."""

    def suspects(self) -> dict[int, Suspicion]:
        """The tables, by identity, that have to be compared with the source."""

    def suspect(self, identity: int, suspicion: Suspicion) -> None:
        """Remember a table as suspect."""

    def clear(self, identity: int) -> None:
        """Forget that a table was suspect."""

    def set_apart(self, identity: int, standing: Standing) -> None:
        """Remember that the changes of a table are skipped, for those who read (`_cdc.freshness`)."""

    def rejoin(self, identity: int) -> None:
        """Forget it: its rows are copied."""

    def apart(self) -> set[int]:
        """The tables, by identity, whose changes are skipped."""


class StateTables:
    """The state tables of one open target. Nothing here commits."""

    def __init__(self, engine: Asked) -> None:
        self._engine = engine
        self._stored = Stored(None, 0)

    def open(self) -> Checkpoint | None:
        """Make the tables where they are missing, and read the checkpoint.

        Raises:
            CheckpointUnreadable: it is of another format.
        """
        faults.point("target.before_state")
        for statement in _CREATE:
            self._engine.run(statement)
        if "committed_at" not in self._engine.columns(TableName(SCHEMA, "checkpoint")):  # made by an older version
            self._engine.run(_COMMITTED_AT)
        if not self._engine.columns(FRESHNESS):
            self._engine.run(_FRESHNESS)
        self._stored = read(self._engine)
        return self._stored.checkpoint

    @property
    def position(self) -> Position | None:
        return self._stored.checkpoint.position if self._stored.checkpoint is not None else None

    def write(self, checkpoint: Checkpoint, committed_at: int | None) -> None:
        """Put a checkpoint in the place of the one that was last read or written here."""
        before = self._stored
        moment = _EPOCH + timedelta(microseconds=committed_at) if committed_at is not None else None
        values = [FORMAT, before.sequence + 1, checkpoint.position.order, checkpoint.position.text, moment]
        if before.checkpoint is None:
            changed = self._engine.run(
                f"INSERT INTO {SCHEMA}.checkpoint "
                "(format, sequence, position_order, position, committed_at, state, applied_at) "
                "SELECT ?, ?, ?, ?, CAST(? AS TIMESTAMPTZ), ?, now() "
                f"WHERE NOT EXISTS (SELECT 1 FROM {SCHEMA}.checkpoint)",
                [*values, checkpoint.state],
            )
        elif before.checkpoint.state == checkpoint.state:
            changed = self._engine.run(
                f"UPDATE {SCHEMA}.checkpoint SET format = ?, sequence = ?, position_order = ?, position = ?, "
                "committed_at = coalesce(?, committed_at), applied_at = now() WHERE sequence = ?",
                [*values, before.sequence],
            )
        else:
            changed = self._engine.run(
                f"UPDATE {SCHEMA}.checkpoint SET format = ?, sequence = ?, position_order = ?, position = ?, "
                "committed_at = coalesce(?, committed_at), state = ?, applied_at = now() WHERE sequence = ?",
                [*values, checkpoint.state, before.sequence],
            )
        if changed != 1:
            raise TargetBusy(
                "Another pipeline has written a checkpoint into this target.", hint="One target, one pipeline."
            )
        self._stored = Stored(checkpoint, before.sequence + 1)

    def take_mode(self, wanted: Mode | None) -> Mode:
        """The mode that the tables are kept in; a file without any takes on what is wanted.

        Raises:
            UsageError: it is another one than is wanted.
        """
        found = read_mode(self._engine)
        if not len(self.owned()):
            found = wanted or Mode.MIRROR
            self._engine.run(f"DELETE FROM {SCHEMA}.mode")
            self._engine.run(f"INSERT INTO {SCHEMA}.mode VALUES (?)", [found.value])
        if wanted is not None and found is not wanted:
            raise UsageError(
                f"The target keeps its tables as {found}, and cannot go on as {wanted}.",
                hint=f"Leave --mode out (or write {found}), or copy into another file.",
            )
        return found

    def owned(self) -> OwnedTables:
        """The tables that this pipeline made."""
        found = self._engine.ask(f"SELECT identity, schema_name, table_name FROM {SCHEMA}.tables")
        return OwnedTables({identity: TableName(schema, table) for identity, schema, table in found})

    def own(self, identity: int, table: TableName, *, is_known: bool) -> None:
        """Remember a table as made by this pipeline, under the name that it has now."""
        if is_known:
            self._engine.run(f"DELETE FROM {SCHEMA}.tables WHERE identity = ?", [identity])
        self._engine.run(f"INSERT INTO {SCHEMA}.tables VALUES (?, ?, ?)", [identity, table.schema, table.name])

    def copying(self) -> set[int]:
        """The tables, by identity, that are copied part by part."""
        return {row[0] for row in self._engine.ask(f"SELECT identity FROM {SCHEMA}.copying")}

    def copy_parts(self, identity: int) -> None:
        """Remember that a table is copied part by part."""
        self.copied(identity)
        self._engine.run(f"INSERT INTO {SCHEMA}.copying VALUES (?)", [identity])

    def copied(self, identity: int) -> None:
        """Forget it: the copy is complete."""
        self._engine.run(f"DELETE FROM {SCHEMA}.copying WHERE identity = ?", [identity])

    def suspects(self) -> dict[int, Suspicion]:
        """The tables, by identity, that have to be compared with the source."""
        found = self._engine.ask(f"SELECT identity, reason, number FROM {SCHEMA}.suspect")
        return {identity: Suspicion(reason, number) for identity, reason, number in found}

    def suspect(self, identity: int, suspicion: Suspicion) -> None:
        """Remember a table as suspect."""
        self.clear(identity)
        values = [identity, suspicion.reason, suspicion.number]
        self._engine.run(f"INSERT INTO {SCHEMA}.suspect VALUES (?, ?, ?)", values)

    def clear(self, identity: int) -> None:
        """Forget that a table was suspect."""
        self._engine.run(f"DELETE FROM {SCHEMA}.suspect WHERE identity = ?", [identity])

    def set_apart(self, identity: int, standing: Standing) -> None:
        """Remember that the changes of a table are skipped, for those who read."""
        self.rejoin(identity)
        self._engine.run(
            f"INSERT INTO {SCHEMA}.apart VALUES (?, ?, ?)", [identity, standing.state.value, standing.reason]
        )

    def rejoin(self, identity: int) -> None:
        """Forget it: its rows are copied."""
        self._engine.run(f"DELETE FROM {SCHEMA}.apart WHERE identity = ?", [identity])

    def apart(self) -> set[int]:
        """The tables, by identity, whose changes are skipped."""
        return {row[0] for row in self._engine.ask(f"SELECT identity FROM {SCHEMA}.apart")}


def read(engine: Asked) -> Stored:
    """The checkpoint of an open target; that it has no state tables counts as none."""
    if not engine.columns(TableName(SCHEMA, "checkpoint")):
        return Stored(None, 0)
    found = engine.ask(f"SELECT format, sequence, position_order, position, state FROM {SCHEMA}.checkpoint")
    if not found:
        return Stored(None, 0)
    written, sequence, order, position, state = found[0]
    if written != FORMAT or len(found) > 1:
        raise CheckpointUnreadable(
            f"The target's checkpoint has format {written}; this version of cdc writes {FORMAT}.",
            hint="Use the version of cdc that wrote it, or a newer one.",
        )
    return Stored(Checkpoint(Position(int(order), position), state), sequence)


def read_mode(engine: Asked) -> Mode:
    """How the tables of an open target are kept; before there were modes, all were mirrors."""
    found = engine.ask(f"SELECT mode FROM {SCHEMA}.mode") if engine.columns(TableName(SCHEMA, "mode")) else []
    return Mode(found[0][0]) if found else Mode.MIRROR


def read_marks(engine: Asked) -> dict[int, Standing]:
    """The tables, by identity, of an open target that are copied by parts or suspect."""
    state = StateTables(engine)
    found = {table: Standing(State.COPYING) for table in state.copying()}
    if not engine.columns(TableName(SCHEMA, "suspect")):  # the target is of an older version
        return found
    return found | {table: Standing(State.SUSPECT, doubt.reason) for table, doubt in state.suspects().items()}


def drop(engine: Asked) -> None:
    """Remove the state tables."""
    engine.run(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
