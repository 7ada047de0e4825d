"""How a session logs in: PyMySQL, which shows its password only to a server that has proven who it is (O17).

A server chooses by which method a user logs in. `mysql_native_password`, `client_ed25519` and the short way of
`caching_sha2_password` send a hash of the password and of a number of the server's. With all others the server gets the
password itself: as text, or encrypted under a key that it sends. Whatever answers at its address may ask for those.
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_authentication_methods.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymysql import connections

from cdc.errors import Unavailable, UsageError

_PATHS = (
    "Name the authority of the server's certificate in the DSN: ?ssl_ca=FILE (MySQL makes itself one: ca.pem in its "
    "data folder). On the server's own machine ?unix_socket=PATH needs no proof. For a MySQL without TLS: "
    "?ssl_mode=disabled&server_public_key=FILE (public_key.pem in its data folder)."
)
_WHILE_LOGGING_IN = 1 << 20  # bytes of one answer
_LONGEST = 1 << 30  # later: a row may not have more (max_allowed_packet)


class Login(connections.Connection):  # type: ignore[misc]
    """A connection of PyMySQL that is not open yet.

    Args:
        name: of the server, for errors.
        is_proven: whether a certificate that the server shows proves who it is.
        server_public_key: a file with the key that the password may be encrypted under, without TLS.
        longest: bytes that an answer may have.
        arguments: those of PyMySQL.

    Raises:
        UsageError: the file cannot be read.
    """

    _auth_plugin_name: str
    _is_in = False

    def __init__(
        self,
        name: str,
        *,
        is_proven: bool,
        server_public_key: str | None,
        longest: int = _LONGEST,
        **arguments: Any,
    ) -> None:
        self._name = name
        self._is_proven = is_proven
        self._longest = longest
        self._left = _WHILE_LOGGING_IN
        self._known_key = _key(name, server_public_key)
        super().__init__(**arguments, defer_connect=True)

    def connect(self, sock: Any = None) -> None:
        """Open it and log in.

        Raises:
            UsageError: the server asks for the password, and has not proven that it may have it.
            Unavailable: an answer has no end.
        """
        super().connect(sock)
        self._is_in = True
        self._left = self._longest

    @property
    def server_public_key(self) -> bytes | None:
        """The key that the password may be encrypted under; what the server sends for one is nobody's word."""
        return self._known_key

    @server_public_key.setter
    def server_public_key(self, sent: bytes | None) -> None:
        if sent is not None:
            raise UsageError(
                f"{self._name}: the server wants the password under a key of its own, and has not proven who it is.",
                hint=_PATHS,
            )

    def write_packet(self, payload: bytes) -> None:
        if self.password and payload == self.password + b"\0" and not self._may_have_password:
            raise UsageError(
                f"{self._name}: the server wants the password as text, and has not proven who it is.", hint=_PATHS
            )
        super().write_packet(payload)

    @property
    def _may_have_password(self) -> bool:
        return bool(self.unix_socket) or (self._is_proven and self._secure)

    def _get_server_information(self) -> None:
        super()._get_server_information()
        if self._auth_plugin_name == "sha256_password":
            # PyMySQL would send the password with its first packet. The server names the method of the user again.
            self._auth_plugin_name = "mysql_native_password"

    def _execute_command(self, command: int, sql: bytes | str) -> None:
        if self._is_in:
            self._left = self._longest
        super()._execute_command(command, sql)

    def _read_bytes(self, num_bytes: int) -> bytes:
        self._left -= num_bytes
        if self._left < 0:
            self._force_close()
            raise Unavailable(f"{self._name}: the server's answer has no end.", hint="Is that a server of MySQL?")
        return bytes(super()._read_bytes(num_bytes))


def _key(name: str, file: str | None) -> bytes | None:
    try:
        return Path(file).read_bytes() if file is not None else None
    except OSError as error:
        raise UsageError(f"{name}: the server_public_key of the DSN cannot be read: {error.strerror}.") from error
