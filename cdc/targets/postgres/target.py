"""The PostgreSQL target: tables of one database."""

from __future__ import annotations

from cdc.model.position import Checkpoint
from cdc.tables.failures import mapped_errors
from cdc.tables.target import TableTarget
from cdc.target import Keys, Mode
from cdc.targets.postgres.engine import PostgresEngine
from cdc.targets.postgres.keys import take_keys


class PostgresTarget(TableTarget):
    """One PostgreSQL database as a `cdc.target.Target`."""

    def __init__(self, database: PostgresEngine, mode: Mode | None = None, keys: Keys | None = None) -> None:
        super().__init__(database, mode)
        self._server = database
        self._wanted_keys = keys

    def open(self) -> Checkpoint | None:
        checkpoint = super().open()
        with mapped_errors(self._server):
            self._server.keys = take_keys(self._server, self._wanted_keys, is_new=not len(self._owned))
        return checkpoint
