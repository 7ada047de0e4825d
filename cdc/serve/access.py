"""Who may read: a name and a password, from the environment, and TLS."""

from __future__ import annotations

import hmac
import ssl
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import UsageError

USER, PASSWORD = "CDC_SERVE_USER", "CDC_SERVE_PASSWORD"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read.

    Attributes:
        user, password: None if everybody who can reach this machine's own address may read.
        certificate, key: files in PEM; None without TLS.
    """

    user: str | None = None
    password: str | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def of(cls, environment: dict[str, str], certificate: Path | None, key: Path | None) -> Access:
        """What the environment says.

        Raises:
            UsageError: half of a pair is missing, or there is no such file.
        """
        user, password = environment.get(USER), environment.get(PASSWORD)
        if (user is None) != (password is None):
            raise UsageError(f"{USER} and {PASSWORD} belong together.", hint="Set both, or neither.")
        if (certificate is None) != (key is None):
            raise UsageError("--tls-cert and --tls-key belong together.", hint="Give both, or neither.")
        if password is not None and not (user and password):
            raise UsageError(f"{USER} or {PASSWORD} is empty.", hint="Is a variable of the shell empty?")
        for name, value in ((USER, user), (PASSWORD, password)):
            if value is not None and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise UsageError(f"{name} is not valid UTF-8.", hint="Set it again, in a terminal that uses UTF-8.")
        for file in (certificate, key):
            if file is not None and not file.is_file():
                raise UsageError(f"There is no file {file}.")
        return cls(user, password, certificate, key)

    def allows(self, user: str, password: str) -> bool:
        """Whether a name and a password are the right ones."""
        if self.user is None or self.password is None:
            return True
        same = hmac.compare_digest(user.encode(), self.user.encode())
        return hmac.compare_digest(password.encode(), self.password.encode()) and same

    def tls(self) -> ssl.SSLContext | None:
        """What a connection is wrapped in.

        Raises:
            UsageError: the files are not a certificate with its key.
        """
        if self.certificate is None or self.key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(f"{self.certificate} is not a certificate with the key {self.key}: {error}") from error
        return context
