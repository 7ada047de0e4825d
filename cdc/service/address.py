"""Where the service listens, as people write it: `HOST:PORT`, `[::1]:9464`, `:9464`."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from cdc.errors import UsageError

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_FORM = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]*)):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A host, by name or number, and a port; port 0 is one that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`; without a host it is this machine alone.

        Raises:
            UsageError: it is not written so.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None or int(found["port"]) > 65535:
            raise UsageError(
                f"--listen {text!r} is not an address.", hint="Write it as 127.0.0.1:9464, [::1]:9464 or :9464."
            )
        return cls(found["six"] or found["host"] or "127.0.0.1", int(found["port"]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def names(self) -> list[str]:
        """What a request may call this host. A page of another site, whose name leads to this machine, is none of these
        (DNS rebinding); beyond this machine any name may be the right one."""
        return [*_LOOPBACK, str(Address(self.host, 0))[:-2]] if self.is_loopback else ["*"]

    def bind(self) -> socket.socket:
        """Listen there.

        Raises:
            UsageError: somebody else does, or this machine has no such address.
        """
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, kind, protocol)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(place)
                listening.listen(128)
            except OSError:
                listening.close()
                raise
        except OSError as error:
            raise UsageError(
                f"Nothing can listen at {self}: {error.strerror}.",
                hint=f"Name another one with --listen, or see who has it: ss -ltnp 'sport = :{self.port}'",
            ) from error
        return listening
