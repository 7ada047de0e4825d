"""One writer: a row that its process renews.

ClickHouse has no locks, so the process that took the lease later wins. What the earlier one records has a smaller
version, and its rows say nothing that the log does not say.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable

from cdc.logs import Thread
from cdc.targets.clickhouse.address import Client, Error, Server, busy

log = logging.getLogger(__name__)

RENEWED_EVERY = 10.0  # seconds
_ENDS_AFTER = 30  # seconds
_OWN: set[str] = set()  # leases of this process
_LAST = (
    "SELECT epoch, argMax(owner, seen), argMax(host, seen), argMax(process, seen), argMax(released, seen), "
    "dateDiff('second', max(seen), now64(3)) FROM {} GROUP BY epoch ORDER BY epoch DESC LIMIT 1"
)


class Lease:
    """The right to write to the databases of one prefix.

    Args:
        table: quoted, where the rows of the lease are.
        connect: makes a client of its own for the thread that renews it.
    """

    def __init__(self, server: Server, table: str, connect: Callable[[], Client]) -> None:
        self._server = server
        self._table = table
        self._connect = connect
        self._owner = uuid.uuid4().hex
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.epoch = 0

    def take(self, client: Client) -> None:
        """Take it; raises TargetBusy if another process has it."""
        found = client.query(_LAST.format(self._table)).result_rows
        if found:
            epoch, owner, host, process, released, age = found[0]
            if not released and age < _ENDS_AFTER and not _is_dead(owner, host, process):
                raise busy(self._server)
            self.epoch = int(epoch) + 1
        else:
            self.epoch = 1
        self._renew(client)
        owners = client.query(f"SELECT DISTINCT owner FROM {self._table} WHERE epoch = {self.epoch}").result_rows
        if owners != [
            (self._owner,)
        ]:  # both may see each other, and let go; none sees itself alone unless it was first
            raise busy(self._server)
        _OWN.add(self._owner)
        self._ended.clear()
        self._thread = Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def verify(self, client: Client) -> None:
        """Raise TargetBusy if another process took it meanwhile."""
        ((newest,),) = client.query(f"SELECT max(epoch) FROM {self._table}").result_rows
        if newest != self.epoch:
            raise busy(self._server)

    def release(self, client: Client) -> None:
        """Give it back. May be called twice."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        _OWN.discard(self._owner)
        try:
            self._renew(client, released=True)
        except (Error, OSError) as failure:
            log.debug("the lease was not given back, and ends by itself: %s", failure)

    def _keep(self) -> None:
        client: Client | None = None
        while not self._ended.wait(RENEWED_EVERY):
            try:
                client = client or self._connect()
                self._renew(client)
            except (Error, OSError) as failure:
                log.debug("the lease was not renewed: %s", failure)
        if client is not None:
            client.close()

    def _renew(self, client: Client, *, released: bool = False) -> None:
        client.command(
            f"INSERT INTO {self._table} SELECT {self.epoch}, '{self._owner}', {{host:String}}, {os.getpid()}, "
            f"{'true' if released else 'false'}, now64(3)",
            parameters={"host": socket.gethostname()},
        )


def _is_dead(owner: str, host: str, process: int) -> bool:
    """Whether the process of a lease is known to be no more: it was of this machine, where its number is free or is now
    that of this one, as in a container that was started again."""
    if host != socket.gethostname():
        return False
    if process == os.getpid():
        return owner not in _OWN
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
