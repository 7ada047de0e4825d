"""SCRAM-SHA-256 as a server (RFC 5802, RFC 7677): the password is never sent, nor kept as it is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata

MECHANISM = "SCRAM-SHA-256"
_ROUNDS = 4096  # as PostgreSQL


class Verifier:
    """What a server keeps of a password."""

    def __init__(self, password: str) -> None:
        self.salt = secrets.token_bytes(16)
        salted = hashlib.pbkdf2_hmac("sha256", unicodedata.normalize("NFKC", password).encode(), self.salt, _ROUNDS)
        client = hmac.digest(salted, b"Client Key", "sha256")
        self.stored = hashlib.sha256(client).digest()
        self.server = hmac.digest(salted, b"Server Key", "sha256")


class Exchange:
    """One login."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._said: list[bytes] = []
        self._nonce = b""
        self._header = b""

    def challenge(self, first: bytes) -> bytes:
        """The answer to the client's first message; raises ValueError if it cannot be read."""
        kind, _, rest = first.partition(b",")
        if kind not in (b"n", b"y"):  # `p=`: channel binding, which was not offered
            raise ValueError("channel binding was not offered")
        identity, _, bare = rest.partition(b",")
        if identity:
            raise ValueError("nobody reads in the name of another user")
        self._header = b",".join((kind, identity, b""))
        self._nonce = _fields(bare)[b"r"] + base64.b64encode(secrets.token_bytes(18))
        answer = b"r=%b,s=%b,i=%d" % (self._nonce, base64.b64encode(self._verifier.salt), _ROUNDS)
        self._said = [bare, answer]
        return answer

    def proof(self, final: bytes) -> bytes | None:
        """The server's own proof if the client's is right; None otherwise. Raises ValueError if it is no message."""
        without, _, sent = final.rpartition(b",p=")
        fields = _fields(without)
        if base64.b64decode(fields[b"c"]) != self._header or fields[b"r"] != self._nonce:
            return None
        said = b",".join([*self._said, without])
        signature = hmac.digest(self._verifier.stored, said, "sha256")
        key = bytes(a ^ b for a, b in zip(base64.b64decode(sent), signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(key).digest(), self._verifier.stored):
            return None
        return b"v=" + base64.b64encode(hmac.digest(self._verifier.server, said, "sha256"))


def _fields(message: bytes) -> dict[bytes, bytes]:
    fields = dict(field.split(b"=", 1) for field in message.split(b",") if b"=" in field)
    if not fields.get(b"r"):
        raise ValueError("no nonce")
    if (
        b"m" in fields
    ):  # "its presence in a client or a server message MUST cause authentication failure" (RFC 5802, 5.1)
        raise ValueError("an extension that is not known")
    return fields
