"""How a client introduces itself by the PostgreSQL protocol, and proves who it is."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from pygwire import messages as m
from pygwire.constants import StartupRequestCode

from cdc.serve.access import Access
from cdc.serve.pgwire.link import Link
from cdc.serve.pgwire.scram import MECHANISM, Exchange, Verifier

_WITHIN = 10.0  # seconds from the connection to the proof
_LARGEST = 10_000  # bytes of a message, as PostgreSQL


class Login:
    """The first words of one client.

    Args:
        verifier: of the password; None if no password is needed.
        tls: None if it is not offered.
        needs_tls: the client's words may pass over a network.
        cancel: ends the query of another client, which is known by a number and a secret.
    """

    def __init__(
        self,
        link: Link,
        access: Access,
        verifier: Verifier | None,
        tls: ssl.SSLContext | None,
        *,
        needs_tls: bool,
        cancel: Callable[[int, bytes], None],
    ) -> None:
        self._link = link
        self._access = access
        self._verifier = verifier
        self._tls = tls
        self._needs_tls = needs_tls
        self._cancel = cancel

    def introduction(self) -> m.StartupMessage | None:
        """What a client that may read has said of itself; None if it is gone, or has to go."""
        over_at = time.monotonic() + _WITHIN
        self._link.over_at = lambda: over_at
        with suppress(TimeoutError), self._link.talking():
            return self._introduced()
        return None

    def _introduced(self) -> m.StartupMessage | None:
        link = self._link
        arrived = link.received(_LARGEST)
        for message in arrived:
            match message:
                case m.CancelRequest():
                    self._cancel(message.process_id, message.secret_key)
                    return None
                case m.GSSEncRequest():
                    link.say(m.GSSResponse(accepted=False))
                case m.SSLRequest():
                    link.say(m.SSLResponse(accepted=self._tls is not None))
                    link.flush()
                    if self._tls is not None and not link.is_wrapped:
                        link.wrap(self._tls)
                case m.StartupMessage():
                    if self._needs_tls and not link.is_wrapped:
                        link.refuse("28000", "TLS is needed here. Connect with sslmode=require, or a stricter one.")
                        return None
                    return message if self._is_let_in(message, arrived) else None
                case _:
                    return None
        return None

    def _is_let_in(self, message: m.StartupMessage, arrived: Iterator[m.PGMessage]) -> bool:
        if message.protocol_version != StartupRequestCode.V3_0:
            self._link.say(m.NegotiateProtocolVersion(newest_minor=0))
        user = message.params.get("user", "")
        if not self._is_known(user, arrived):
            self._link.refuse("28P01", f'Password authentication failed for user "{user}".')
            return False
        return True

    def _is_known(self, user: str, arrived: Iterator[m.PGMessage]) -> bool:
        if self._verifier is None:
            return True
        self._link.say(m.AuthenticationSASL([MECHANISM]))
        first = next(arrived)
        if not isinstance(first, m.SASLInitialResponse) or first.mechanism != MECHANISM:
            return False
        try:
            exchange = Exchange(self._verifier)
            self._link.say(m.AuthenticationSASLContinue(exchange.challenge(first.data)))
            final = next(arrived)
            proof = exchange.proof(final.data) if isinstance(final, m.SASLResponse) else None
        except (ValueError, KeyError):
            return False
        # The name is looked at last, so that a wrong one takes as long as a wrong password.
        if proof is None or user != self._access.user:
            return False
        self._link.say(m.AuthenticationSASLFinal(proof))
        return True
