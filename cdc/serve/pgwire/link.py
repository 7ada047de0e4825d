"""The messages of one client, by pygwire, over a socket that may be wrapped in TLS on the way."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pygwire import messages as m
from pygwire.connection import BackendConnection
from pygwire.exceptions import PygwireError

_AT_ONCE = 1 << 18  # bytes gathered before they are sent
_LAST_WORD = 1.0  # seconds in which a client takes the reason why it has to go


class Ended(Exception):
    """The client is gone, or has to go."""


class Link:
    """What a client sends, and what it is sent.

    Args:
        patience: seconds in which a client reads what is sent at once.

    Attributes:
        over_at: at which time, by `time.monotonic`, the client has to be done with what it is at; None for no bound.
            A limit of each read or write alone would let a client go on byte by byte.
    """

    def __init__(self, connection: socket.socket, patience: float) -> None:
        self.over_at: Callable[[], float | None] = lambda: None
        self.is_wrapped = False
        self._socket = connection
        self._patience = patience
        self._protocol = BackendConnection()
        self._out: list[bytes] = []
        self._gathered = 0

    @contextmanager
    def talking(self) -> Iterator[None]:
        """What a client may do wrong ends here, and the client hears of it.

        Raises:
            TimeoutError: the client has taken too long.
        """
        try:
            yield
        except TimeoutError:
            raise
        except (PygwireError, UnicodeDecodeError) as error:
            self.refuse("08P01", f"This is no message of the protocol: {error}")
        except (Ended, OSError):
            pass
        except Exception:
            self.refuse("XX000", "An answer failed in a way that is not foreseen: the log of the server says how.")
            raise

    def wrap(self, tls: ssl.SSLContext) -> None:
        """Go on in TLS."""
        self._socket.settimeout(self._left())  # of the whole handshake
        self._socket = tls.wrap_socket(self._socket, server_side=True)
        self.is_wrapped = True

    def received(self, largest: int) -> Iterator[m.PGMessage]:
        """The messages of the client, as they come.

        Args:
            largest: bytes of one.

        Raises:
            Ended: the client has closed the connection.
            TimeoutError: the client has taken too long.
        """
        unfinished = 0
        while True:
            self.flush()
            self._socket.settimeout(self._left())
            content = self._socket.recv(1 << 16)
            if not content:
                raise Ended
            unfinished += len(content)
            for message in self._protocol.receive(content):
                unfinished = 0
                yield message
            if unfinished > largest:
                self.refuse("08P01", f"A message is longer than {largest} bytes.")
                raise Ended

    def say(self, message: m.PGMessage) -> None:
        """Send a message, with others that follow at once."""
        self.put(self._protocol.send(message))

    def put(self, content: bytes) -> None:
        """Send bytes of messages."""
        self._out.append(content)
        self._gathered += len(content)
        if self._gathered > _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Send what was gathered; raises TimeoutError if the client does not read it."""
        content, self._out, self._gathered = b"".join(self._out), [], 0
        if content:
            left = self._left()
            self._socket.settimeout(self._patience if left is None else min(left, self._patience))
            self._socket.sendall(content)

    def refuse(self, sqlstate: str, text: str) -> None:
        """Say why the client has to go."""
        fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": text.replace("\0", "")}
        with suppress(OSError):
            self._socket.settimeout(_LAST_WORD)
            self._socket.sendall(b"".join([*self._out, m.ErrorResponse(fields).to_wire()]))
        self._out = []

    def close(self) -> None:
        """Let go of the socket, which a wrapped one has taken over from the one that was given."""
        self._socket.close()

    def _left(self) -> float | None:
        over_at = self.over_at()
        if over_at is None:
            return None
        if (left := over_at - time.monotonic()) <= 0:
            raise TimeoutError
        return left
