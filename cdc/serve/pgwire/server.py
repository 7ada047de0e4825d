"""Takes connections by the PostgreSQL protocol: a thread for each, and no more than so many."""

from __future__ import annotations

import logging
import secrets
import socket
import socketserver
import threading
from contextlib import closing

from pygwire.messages import StartupMessage

from cdc.serve.access import Access
from cdc.serve.address import Address
from cdc.serve.editions import Editions
from cdc.serve.pgwire.conversation import Conversation
from cdc.serve.pgwire.link import Link
from cdc.serve.pgwire.login import Login
from cdc.serve.pgwire.scram import Verifier
from cdc.serve.reading import Reader
from cdc.targets.duckdb.refusals import TOO_MANY

log = logging.getLogger(__name__)

_LOBBY = 4  # times as many clients may log in at once as may read
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # A client may be gone without a word: it is found out within two minutes (tcp(7)), not within hours.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
)


class PgServer(socketserver.ThreadingTCPServer):
    """Listens at an address.

    Raises:
        OSError: somebody else does.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: Address, editions: Editions, access: Access) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._editions = editions
        self._access = access
        self._verifier = Verifier(access.password) if access.password is not None else None
        self._tls = access.tls()
        self._needs_tls = not address.is_loopback
        self._places = threading.BoundedSemaphore(editions.limits.connections)
        # Whoever has no password can take these places alone, for the time of a login.
        self._lobby = threading.BoundedSemaphore(_LOBBY * editions.limits.connections)
        self._running: dict[tuple[int, bytes], Reader] = {}
        super().__init__((address.host, address.port), socketserver.BaseRequestHandler)

    def finish_request(self, request: object, client_address: object) -> None:
        """Talk to one client, on a thread for it alone."""
        assert isinstance(request, socket.socket)
        for level, option, value in _OPTIONS:
            request.setsockopt(level, option, value)
        with closing(Link(request, self._editions.limits.seconds)) as link:
            introduction = self._introduction(link)
            if introduction is None:
                return
            if not self._places.acquire(blocking=False):
                link.refuse(TOO_MANY, "Too many readers are connected.")
                return
            try:
                self._hold(link, introduction)
            finally:
                self._places.release()

    def _introduction(self, link: Link) -> StartupMessage | None:
        if not self._lobby.acquire(blocking=False):
            return None  # there are so many at once that no time is left to say why
        try:
            login = Login(link, self._access, self._verifier, self._tls, needs_tls=self._needs_tls, cancel=self._cancel)
            return login.introduction()
        finally:
            self._lobby.release()

    def _hold(self, link: Link, introduction: StartupMessage) -> None:
        reader = Reader(self._editions)
        key = secrets.randbelow(1 << 31), secrets.token_bytes(4)
        self._running[key] = reader
        try:
            Conversation(link, reader, key).hold(introduction)
        finally:
            del self._running[key]

    def _cancel(self, number: int, secret: bytes) -> None:
        if (reader := self._running.get((number, secret))) is not None:
            reader.cancel()

    def handle_error(self, request: object, client_address: object) -> None:
        log.error("A conversation with a reader failed.", exc_info=True)
