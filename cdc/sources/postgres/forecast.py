"""Whether the log that a slot may keep lasts until a copy is done (C-06)."""

from __future__ import annotations

from cdc.sources.postgres.catalog import Connection

_LEAST_SECONDS = 20.0  # of copying, before its pace says anything


class Forecast:
    """Looks at a slot now and then while tables are copied, and says when what it may still keep will not last.

    Args:
        rows: to copy, by the source's own estimate.
        now: seconds, by any clock.
    """

    def __init__(self, rows: int, now: float) -> None:
        self._rows = rows
        self._began = now
        self._first: tuple[float, int] | None = None
        self._has_warned = False

    def look(self, now: float, copied: int, safe_bytes: int | None) -> str | None:
        """A warning, once; None as long as there is nothing to warn of.

        Args:
            now: by the same clock.
            copied: rows so far.
            safe_bytes: of log that may be written before the slot is in danger; None if there is no limit.
        """
        if safe_bytes is None or self._has_warned:
            return None
        if self._first is None:
            self._first = (now, safe_bytes)
            return None
        since, before = self._first
        used, took = before - safe_bytes, now - self._began
        if took < _LEAST_SECONDS or used <= 0 or not copied:
            return None
        lasts = safe_bytes * (now - since) / used
        needs = max(0, self._rows - copied) * took / copied
        if lasts >= needs or not needs:
            return None
        self._has_warned = True
        return (
            f"The copy needs about {needs / 60:.0f} more minutes, but at the present rate of writing the slot will be "
            f"lost in {max(0.0, lasts) / 60:.0f}: the server may keep {max(0, safe_bytes) >> 20} MB more of log for "
            "it. Raise max_slot_wal_keep_size (ALTER SYSTEM SET, then SELECT pg_reload_conf()), or copy fewer tables "
            "at a time."
        )


def safe_bytes(connection: Connection, slot: str) -> int | None:
    """How much more log may be written before a slot is in danger; None without a limit or a slot."""
    row = connection.execute("SELECT safe_wal_size FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
    return row[0] if row is not None and isinstance(row[0], int) else None
