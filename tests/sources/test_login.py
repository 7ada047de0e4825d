"""Who gets the password of a MySQL or MariaDB user, and how much a server may answer: shown with servers that lie."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cdc.errors import CdcError, DecodeError, Unavailable, UsageError
from cdc.sources.mysql import select
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.login import Login
from cdc.sources.mysql.select import RowReader
from integration.tls import Authority

PASSWORD = "open sesame"
_TLS, _METHODS = 0x0800, 0x00080000
_ABLE = 0x0000A205 | _METHODS  # protocol 4.1, transactions, secure connection, long password
_SALT = b"abcdefgh", b"ijklmnopqrst"
OK = b"\0\0\0\2\0\0\0"

Script = Callable[["Liar"], None]


class Liar:
    """What answers at the address of a server, and keeps the packets that it is sent."""

    def __init__(self, connection: socket.socket) -> None:
        self.packets: list[bytes] = []
        self._connection = connection
        self._number = 0

    def say(self, payload: bytes) -> None:
        self._connection.sendall(struct.pack("<I", len(payload))[:3] + bytes([self._number]) + payload)
        self._number = (self._number + 1) % 256

    def hear(self) -> bytes:
        """One packet; EOFError if nothing more comes."""
        head = self._take(4)
        self._number = (head[3] + 1) % 256
        payload = self._take(int.from_bytes(head[:3], "little"))
        self.packets.append(payload)
        return payload

    @property
    def heard(self) -> bytes:
        return b"".join(self.packets)

    def greet(self, method: bytes, *, tls: ssl.SSLContext | None = None) -> None:
        """The greeting, and what is said to it, with TLS before that if the client wants it."""
        able = _ABLE | (_TLS if tls is not None else 0)
        first, second = _SALT
        self.say(
            b"\x0a8.4.0\0" + struct.pack("<I", 7) + first + b"\0" + struct.pack("<H", able & 0xFFFF)
            + b"\xff\2\0" + struct.pack("<HB", able >> 16, 21) + bytes(10) + second + b"\0" + method + b"\0"
        )  # fmt: skip
        if tls is not None:
            self.hear()
            self._connection = tls.wrap_socket(self._connection, server_side=True)
        self.hear()

    def switch(self, method: bytes) -> None:
        """Ask for another method of logging in."""
        self.say(b"\xfe" + method + b"\0" + b"".join(_SALT) + b"\0")

    def forever(self) -> None:
        """One packet without an end."""
        while True:
            self._connection.sendall(b"\xff\xff\xff" + bytes([self._number]) + bytes(0xFFFFFF))
            self._number = (self._number + 1) % 256

    def close(self) -> None:
        self._connection.close()

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (more := self._connection.recv(size - len(data))):
                raise EOFError
            data += more
        return data


@contextmanager
def lying(script: Script, address: str | None = None) -> Iterator[tuple[str, list[Liar]]]:
    """A server that does this with each connection: the options of a DSN for it, and the connections."""
    family = socket.AF_INET if address is None else socket.AF_UNIX
    met: list[Liar] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                met.append(Liar(connection))
                with suppress(OSError, EOFError):
                    script(met[-1])
                    met[-1].hear()
                met[-1].close()

    with socket.socket(family) as listening:
        listening.bind(address or ("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = 3306 if address else listening.getsockname()[1]
        try:
            yield f"mysql://app:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/shop?connect_timeout=5", met
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def public_key() -> tuple[rsa.RSAPrivateKey, bytes]:
    key = rsa.generate_private_key(65537, 2048)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key, key.public_key().public_bytes(serialization.Encoding.PEM, form)


_, KEY = public_key()


def as_text(liar: Liar, tls: ssl.SSLContext | None) -> None:
    liar.greet(b"mysql_native_password", tls=tls)
    liar.switch(b"mysql_clear_password")


def in_a_dialog(liar: Liar, tls: ssl.SSLContext | None) -> None:
    liar.greet(b"mysql_native_password", tls=tls)
    liar.say(b"\xfedialog\0\2Password: ")


def in_full(liar: Liar, tls: ssl.SSLContext | None) -> None:
    """`caching_sha2_password`: what was sent is said not to be enough, and a key is there for a client that asks."""
    liar.greet(b"caching_sha2_password", tls=tls)
    liar.say(b"\1\4")
    liar.hear()
    liar.say(b"\1" + KEY)


def in_full_after_a_switch(liar: Liar, tls: ssl.SSLContext | None) -> None:
    liar.greet(b"mysql_native_password", tls=tls)
    liar.switch(b"caching_sha2_password")
    liar.hear()
    liar.say(b"\1\4")
    liar.hear()
    liar.say(b"\1" + KEY)


def of_old(liar: Liar, tls: ssl.SSLContext | None) -> None:
    """`sha256_password`, which PyMySQL answers with the password at once where there is TLS."""
    liar.greet(b"sha256_password", tls=tls)
    liar.switch(b"sha256_password")
    liar.hear()
    liar.say(b"\1" + KEY)


def of_old_after_a_switch(liar: Liar, tls: ssl.SSLContext | None) -> None:
    liar.greet(b"mysql_native_password", tls=tls)
    liar.switch(b"sha256_password")
    liar.hear()
    liar.say(b"\1" + KEY)


WAYS = [as_text, in_a_dialog, in_full, in_full_after_a_switch, of_old, of_old_after_a_switch]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "one")


@pytest.fixture(scope="module")
def tls(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("server")
    authority.issue("127.0.0.1", folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_who_has_proven_nothing_gets_no_password(
    way: Callable[[Liar, ssl.SSLContext | None], None], is_encrypted: bool, tls: ssl.SSLContext
) -> None:
    """O17, E-03: whatever method the server asks for, and with TLS that anybody can have: it is refused at once."""
    with lying(lambda liar: way(liar, tls if is_encrypted else None)) as (dsn, met):
        with pytest.raises(UsageError, match="has not proven who it is") as caught:
            Connection(Dsn.parse(dsn), "test")
        assert "ssl_ca=FILE" in (caught.value.hint or "")
    assert len(met) == (1 if is_encrypted else 2)  # the first offers TLS
    assert met[-1].heard
    for liar in met:
        assert PASSWORD.encode() not in liar.heard
        assert all(len(packet) < 256 for packet in liar.packets)  # nor what an RSA key has made of it


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_proven_gets_it(
    way: Callable[[Liar, ssl.SSLContext | None], None], tls: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    """O17: with a certificate of the authority that the DSN names, or through a socket of this machine."""
    with lying(lambda liar: way(liar, tls)) as (dsn, met), suppress(CdcError):
        Connection(Dsn.parse(f"{dsn}&ssl_ca={authority.file}"), "test")
    assert PASSWORD.encode() in met[-1].heard
    path = str(tmp_path / "socket")
    with lying(lambda liar: way(liar, None), path) as (dsn, met), suppress(CdcError):
        Connection(Dsn.parse(f"{dsn}&ssl_mode=disabled&unix_socket={path}"), "test")
    assert PASSWORD.encode() in met[0].heard


def test_certificates_of_any_host_prove_nothing(tls: ssl.SSLContext) -> None:
    """O17: without an authority's name or the host's, the owner of a certificate of any site would be the server."""
    dsn = Dsn.parse("mysql://app@db/shop?ssl_mode=verify_ca")
    assert not dsn.proves_server
    assert Dsn.parse("mysql://app@db/shop?ssl_mode=verify_identity").proves_server
    assert Dsn.parse("mysql://app@db/shop?ssl_ca=x").proves_server


def test_a_key_that_somebody_vouches_for(tmp_path: Path) -> None:
    """O17: the password is sent under the key that the DSN names, and under no other one that the server sends then."""
    key, text = public_key()
    file = tmp_path / "public_key.pem"
    file.write_bytes(text)

    def script(liar: Liar) -> None:
        liar.greet(b"mysql_native_password")
        liar.switch(b"sha256_password")
        sent.append(liar.hear())
        liar.say(b"\1" + KEY)
        liar.hear()

    sent: list[bytes] = []
    with lying(script) as (dsn, _), pytest.raises(UsageError, match="a key of its own"):
        Connection(Dsn.parse(f"{dsn}&ssl_mode=disabled&server_public_key={file}"), "test")
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
    salt = b"".join(_SALT)
    found = bytes(byte ^ salt[at % 20] for at, byte in enumerate(key.decrypt(sent[0], oaep)))
    assert found == PASSWORD.encode() + b"\0"
    with pytest.raises(UsageError, match="server_public_key"):
        Connection(Dsn.parse(f"mysql://app@127.0.0.1:1/shop?server_public_key={file}x"), "test")


def test_an_answer_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """O22, E-16: a greeting, the answer to a login, and one to a statement end where no server's would be longer."""

    def at_the_login(liar: Liar) -> None:
        liar.greet(b"mysql_native_password")
        liar.forever()

    def later(liar: Liar) -> None:
        liar.greet(b"mysql_native_password")
        for _ in range(3):
            liar.say(OK)
            liar.hear()
        liar.forever()

    monkeypatch.setitem(Login.__init__.__kwdefaults__, "longest", 1 << 22)
    for script in (Liar.forever, at_the_login, later):
        with lying(script) as (dsn, met), pytest.raises(Unavailable, match="has no end"):
            Connection(Dsn.parse(dsn + "&ssl_mode=disabled"), "test")
        assert len(met) == 1


def test_rows_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """O22: nor does the answer of many packets, of which each is short, nor a copied row of many packets."""
    monkeypatch.setitem(Login.__init__.__kwdefaults__, "longest", 1 << 16)

    def script(liar: Liar) -> None:
        liar.greet(b"mysql_native_password")
        for _ in range(3):
            liar.say(OK)
            liar.hear()
        liar.say(b"\1")  # a column
        liar.say(b"\3def\0\0\0\1x\0\x0c\x21\0\0\1\0\0\xfd\0\0\0\0\0")
        liar.say(b"\xfe\0\0\2\0")
        while True:
            liar.say(b"\4rows")

    with lying(script) as (dsn, _), pytest.raises(Unavailable, match="has no end"):
        Connection(Dsn.parse(dsn + "&ssl_mode=disabled"), "test")
    reader, packet = RowReader(), b"\xff\xff\xff\0" + bytes(0xFFFFFF)
    monkeypatch.setattr(select, "_MOST_PACKETS", 3)
    for _ in range(3):
        reader.feed(packet)
    with pytest.raises(DecodeError, match="larger than a row can be"):
        reader.feed(packet)
