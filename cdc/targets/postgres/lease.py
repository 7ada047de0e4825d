"""What lets one pipeline write to a database: an advisory lock of its session (D-17).

Between a client and the server there may be a pooler that gives each transaction whichever session is free. The lock is
of a session then that others write in as well, and that the next transaction is not in.
"""

from __future__ import annotations

from contextlib import suppress

import psycopg
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from cdc.errors import UsageError
from cdc.targets.postgres.connection import Server, Session, connect

LOCK = 0x63_64_63_74_67_74  # "cdctgt"
_LET_GO_WITHIN, _LOOK_EVERY = 2.0, 0.1  # seconds


class Lease:
    """The lock of one session of the server, which has its process."""

    def __init__(self, server: Server, session: Session) -> None:
        """Take it.

        Raises:
            TargetBusy: another session has it.
            UsageError: others write in this session.
        """
        self._server = server
        self._session = session
        # A server may notice a moment later that the session before this one has ended.
        trying = Retrying(
            stop=stop_after_delay(_LET_GO_WITHIN),
            wait=wait_fixed(_LOOK_EVERY),
            retry=retry_if_result(lambda ours: not ours),
        )
        try:
            trying(self._take)
        except RetryError:
            raise server.busy() from None
        if self._process != session.info.backend_pid:  # what the server itself would have said
            self._refuse_sharing()

    def _take(self) -> bool:
        statement = "SELECT pg_backend_pid(), pg_try_advisory_lock(%s)"
        ((self._process, is_ours),) = self._session.execute(statement, [LOCK]).fetchall()
        return bool(is_ours)

    def release(self) -> None:
        """Give it back, if the session still is one."""
        with suppress(psycopg.Error):
            self._session.execute("ROLLBACK")
            self._session.execute("SELECT pg_advisory_unlock(%s)", [LOCK])

    def _refuse_sharing(self) -> None:
        with connect(self._server) as other, other.transaction():
            ((process,),) = other.execute("SELECT pg_backend_pid()").fetchall()
        if process == self._process:
            raise self._shared()

    def begin(self) -> None:
        """Begin a transaction, which is in one session wherever it is in: it must be the one that has the lock.

        Raises:
            TargetBusy, UsageError: it is not.
        """
        statement = f"BEGIN; SELECT pg_backend_pid(), pg_try_advisory_xact_lock({LOCK})"
        cursor = self._session.execute(statement.encode())
        cursor.nextset()
        ((process, is_ours),) = cursor.fetchall()
        if process == self._process and is_ours:
            return
        self._session.execute("ROLLBACK")
        raise self._server.busy() if process == self._process else self._shared()

    def _shared(self) -> UsageError:
        return UsageError(
            f"{self._server} is a pooler of transactions: others write in its sessions between our statements.",
            hint="Name the server itself, or a pooler of sessions.",
        )
