"""Gaps in the history of a table: places of the log as of which it is not known what its rows were (H4).

They are there where changes were passed over, since their rows could not be read, and where rows may have changed
without an event. A gap ends where the table was copied, or compared with its source, to the end. Where changes are
skipped, only a copy that begins later counts: one that is coming just then does not have them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc.model.moment import written
from cdc.model.schema import TableName
from cdc.tables import sql
from cdc.tables.engine import Engine
from cdc.tables.places import SCHEMA, TABLE

_TABLE = f"{SCHEMA}.gaps"
_NEVER = (1 << 63) - 1


def _commit(which: str, order: str) -> str:
    """The position and the time of a commit, as people read them."""
    return (
        f"(SELECT position || ', ' || shown(micros(committed_at)) FROM {SCHEMA}.commits "
        f"WHERE {which} ORDER BY position_order {order} LIMIT 1)"
    )


# As `sql.worded` takes them.
CREATE = (
    f"CREATE TABLE IF NOT EXISTS {_TABLE} (identity BIGINT, begins BIGINT, ends BIGINT, reason VARCHAR, "
    "is_doubt BOOLEAN, is_skipped BOOLEAN)",
    f"""CREATE OR REPLACE VIEW {SCHEMA}.unknown AS SELECT schema_name, table_name,
    {_commit("position_order >= begins", "ASC")} AS "from", {_commit("position_order >= ends", "ASC")} AS "to", reason
    FROM {_TABLE} JOIN {SCHEMA}.tables USING (identity)""",
)
# For the query that finds places: of `place` and the table TABLE, what is not known; NULL if all is.
UNKNOWN = f"""(SELECT 'from ' || coalesce({_commit("position_order >= begins", "ASC")}, 'now on') ||
        coalesce(' to ' || {_commit("position_order >= ends", "ASC")}, ' on') || ': ' || reason
    FROM {_TABLE} WHERE identity = {TABLE} AND begins <= place AND place < coalesce(ends, {_NEVER})
    ORDER BY begins LIMIT 1)"""


@dataclass(frozen=True, slots=True)
class GapInHistory:
    """What is not known of a table.

    Attributes:
        begins, ends: the places from where to where, without the latter; None where it has not ended.
        first: the first commit that is not known: its position and its time; None if there is none yet.
        before, after: the positions of the last commit that is known, and of the first one that is again.
        after_time: when the latter was.
        reason: why, in a sentence.
    """

    begins: int
    ends: int | None
    first: tuple[str, str] | None
    before: str | None
    after: str | None
    after_time: str | None
    reason: str

    def __str__(self) -> str:
        begin = ", ".join(self.first) if self.first is not None else "now"
        return f"from {begin} " + (f"to {self.after}, {self.after_time}" if self.after is not None else "on")


class Gaps:
    """The gaps of the tables of a target. Nothing here commits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        """From a place on it is not known what a table was; if that was so already, it has been since then.

        Args:
            is_doubt: if no row turns out to be another one, all that were there to the end have been right.
            is_skipped: changes are skipped from there on, until a copy begins.
        """
        if not is_doubt:
            self.confirm(identity)
        self._engine.run(
            f"INSERT INTO {_TABLE} SELECT ?, ?, NULL, ?, ?, FALSE "
            f"WHERE NOT EXISTS (SELECT 1 FROM {_TABLE} WHERE identity = ? AND ends IS NULL)",
            [identity, order, reason, is_doubt, identity],
        )
        if is_skipped:
            self._set_skipped(identity, is_skipped=True)

    def copy_begins(self, identity: int) -> None:
        """From here on nothing of a table is skipped any more."""
        self._set_skipped(identity, is_skipped=False)

    def _set_skipped(self, identity: int, *, is_skipped: bool) -> None:
        self._engine.run(
            f"UPDATE {_TABLE} SET is_skipped = ? WHERE identity = ? AND ends IS NULL", [is_skipped, identity]
        )

    def confirm(self, identity: int) -> None:
        """What was doubted of a table is so."""
        self._engine.run(
            f"UPDATE {_TABLE} SET is_doubt = FALSE WHERE identity = ? AND ends IS NULL AND is_doubt", [identity]
        )

    def end(self, identity: int, order: int) -> None:
        """At a place it is known again; where no row differed, that is where a row that was there went last."""
        doubts = f"SELECT 1 FROM {_TABLE} WHERE identity = ? AND ends IS NULL AND is_doubt"
        if self._engine.ask(doubts, [identity]):
            gone = f"SELECT max(_cdc_valid_to) FROM {SCHEMA}.past_{identity} WHERE _cdc_ended_by <> 'copy'"
            ((last,),) = self._engine.ask(gone)
            order = min(order, last) if last is not None else -1
        self._end("identity = ?", order, [identity])

    def end_copied(self, order: int) -> None:
        """The same for the tables whose copies have ended."""
        self._end(f"identity IN (SELECT identity FROM {SCHEMA}.tables WHERE copied_since IS NOT NULL)", order, [])

    def _end(self, which: str, order: int, values: list[object]) -> None:
        self._engine.run(
            f"UPDATE {_TABLE} SET ends = ? WHERE ends IS NULL AND NOT is_skipped AND {which}", [order, *values]
        )
        self._engine.run(f"DELETE FROM {_TABLE} WHERE ends <= begins")

    def of(self, identity: int) -> list[GapInHistory]:
        """The gaps of a table, in order; empty in a target of an older version."""
        query = f"SELECT begins, ends, reason FROM {_TABLE} WHERE identity = ? ORDER BY begins"
        if not self._engine.columns(TableName(SCHEMA, "gaps")):
            return []
        return [self._described(*gap) for gap in self._engine.ask(query, [identity])]

    def at(self, identity: int, order: int) -> GapInHistory | None:
        """The gap that a place of a table's history lies in, if it lies in one."""
        gaps = self.of(identity)
        return next((gap for gap in gaps if gap.begins <= order and (gap.ends is None or order < gap.ends)), None)

    def _described(self, begins: int, ends: int | None, reason: str) -> GapInHistory:
        before = self._commit(f"position_order < {begins}", "DESC")
        first = self._commit(f"position_order >= {begins}", "ASC")
        after = self._commit(f"position_order >= {ends}", "ASC") if ends is not None else None
        known, when = after if after is not None else (None, None)
        return GapInHistory(begins, ends, first, before[0] if before is not None else None, known, when, reason)

    def _commit(self, which: str, order: str) -> tuple[str, str] | None:
        query = f"SELECT position, micros(committed_at) FROM {SCHEMA}.commits WHERE {which}"
        found = self._engine.ask(sql.worded(self._engine, f"{query} ORDER BY position_order {order} LIMIT 1"))
        return (found[0][0], written(found[0][1])) if found else None
