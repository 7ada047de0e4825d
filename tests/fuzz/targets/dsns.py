"""DSNs: one that can be used, or a UsageError; and the password is in neither (E-03)."""

from __future__ import annotations

import os

from cdc.connectors import source_module, target_module
from cdc.errors import UsageError
from cdc.sources.mysql.connection import Dsn as MySqlDsn
from cdc.sources.postgres.connection import Dsn as PostgresDsn
from tests.fuzz.draw import Draw

CANARY = "hunter2"  # stands between two characters that no other part of a DSN ever has
PIECES = "postgresql:// mysql:// mariadb:// user @ : / ? # [ ] [::1] host 5432 db ssl_mode=required & = %40 %zz".split()
PIECES += ["sslmode=x", "host=/tmp", "\0", "\u0664", "99999999", " ", "'", "\\", "port=x", "options=-c"]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    text = _text(draw)
    for parse in (PostgresDsn.parse, MySqlDsn.parse):
        try:
            dsn = parse(text)
        except UsageError as error:
            _is_silent(f"{error.message} {error.hint}", text)
            continue
        _is_silent(f"{dsn} {dsn!r}", text)
        if isinstance(dsn, PostgresDsn):
            _conninfo(dsn)
    for find in (source_module, target_module):
        try:
            find(draw.ConsumeUnicodeNoSurrogates(20) if draw.ConsumeBool() else text)
        except UsageError:
            continue


def _text(draw: Draw) -> str:
    """A DSN with the password where it belongs, but with whatever a user may have left unescaped around it."""
    if draw.ConsumeIntInRange(0, 4) == 0:
        return draw.ConsumeUnicode(100)
    scheme = PIECES[draw.ConsumeIntInRange(0, 2)]
    password = CANARY + draw.PickValueInList(["", "@", "/", "?", "#", ":", "%", "[", "%40", "%00", " ", "&"]) + CANARY
    host = "".join(PIECES[draw.ConsumeIntInRange(3, len(PIECES) - 1)] for _ in range(draw.ConsumeIntInRange(0, 5)))
    return f"{scheme}user:{password}@host{host}"


def _is_silent(said: str, dsn: str) -> None:
    if CANARY in dsn:
        assert CANARY not in said, (said, dsn)


def _conninfo(dsn: PostgresDsn) -> None:
    for replication in (False, True):
        assert dsn.conninfo(replication=replication, application_name="x")


os.environ.pop("MYSQL_PWD", None)
