"""Takes connections by the PostgreSQL protocol: a thread for each, and no more than so many."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading

from cdc.serve.access import Access
from cdc.serve.address import Address
from cdc.serve.editions import Editions
from cdc.serve.pgwire.conversation import Conversation
from cdc.serve.pgwire.scram import Verifier
from cdc.serve.reading import Reader

log = logging.getLogger(__name__)


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
        self._refusals = threading.BoundedSemaphore(editions.limits.connections)
        self._running: dict[tuple[int, bytes], Reader] = {}
        super().__init__((address.host, address.port), socketserver.BaseRequestHandler)

    def finish_request(self, request: object, client_address: object) -> None:
        """Hold one conversation, on its own thread."""
        assert isinstance(request, socket.socket)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a client may be gone without a word
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = Reader(self._editions)
        mine: list[tuple[int, bytes]] = []

        def register(number: int, secret: bytes, reader: Reader) -> None:
            mine.append((number, secret))
            self._running[number, secret] = reader

        conversation = Conversation(
            request,
            reader,
            self._access,
            self._verifier,
            self._tls,
            needs_tls=self._needs_tls,
            register=register,
            cancel=self._cancel,
        )
        is_full = not self._places.acquire(blocking=False)
        place = self._refusals if is_full else self._places
        if is_full and not place.acquire(blocking=False):
            return  # so many at once that there is no time to tell them why
        try:
            conversation.hold(is_full=is_full)
        finally:
            place.release()
            for key in mine:
                del self._running[key]

    def _cancel(self, number: int, secret: bytes) -> None:
        if (reader := self._running.get((number, secret))) is not None:
            reader.cancel()

    def handle_error(self, request: object, client_address: object) -> None:
        log.error("A conversation with a reader failed.", exc_info=True)
