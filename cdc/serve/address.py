"""Where readers connect: `pg://HOST:PORT`, `flight://HOST:PORT`, `http://HOST:PORT`."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from enum import StrEnum

from cdc.errors import UsageError
from cdc.serve.access import PASSWORD, USER, Access

_WRITTEN = re.compile(r"(?:(\w+)://)?(\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+):(\d{1,5})/?")


class Protocol(StrEnum):
    """What is spoken at an address."""

    PG = "pg"
    FLIGHT = "flight"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Address:
    """Where readers connect, and how they speak."""

    protocol: Protocol
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def address_of(text: str) -> Address:
    """`127.0.0.1:5433` means the PostgreSQL protocol.

    Raises:
        UsageError: it is no address.
    """
    found = _WRITTEN.fullmatch(text.strip())
    protocol = {"postgresql": "pg", "postgres": "pg", None: "pg"}.get(found[1], found[1]) if found else ""
    if found is None or protocol not in set(Protocol) or not 0 < int(found[3]) < 65536:
        raise UsageError(
            f"--serve {text!r} is no address to serve at.",
            hint="Write it as pg://127.0.0.1:5433, flight://127.0.0.1:31337 or http://127.0.0.1:8433.",
        )
    return Address(Protocol(protocol), found[2].strip("[]"), int(found[3]))


def bound(address: Address) -> socket.socket:
    """A socket that has an address, and does not listen yet.

    Raises:
        OSError: somebody else has it, or this machine does not.
    """
    link = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind((address.host, address.port))
    except BaseException:
        link.close()
        raise
    return link


def refuse_open(addresses: list[Address], access: Access) -> None:
    """Beyond this machine, nothing is served that somebody on the way could read, or without a password.

    Raises:
        UsageError: that is what was asked for.
    """
    for address in addresses:
        if address.is_loopback:
            continue
        if access.certificate is None or access.password is None:
            raise UsageError(
                f"{address} can be reached from other machines: that needs TLS and a password.",
                hint=f"Give --tls-cert and --tls-key, and set {USER} and {PASSWORD}; or serve at 127.0.0.1.",
            )
