"""What each kind of PostgreSQL error means for a pipeline, and that no error says a password."""

from __future__ import annotations

import psycopg
import pytest

from cdc.errors import (
    EXIT_OPERATOR,
    EXIT_RESTARTABLE,
    EXIT_USAGE,
    CdcError,
    OperatorNeeded,
    PublicationChanged,
    SlotBusy,
    SlotUnusable,
    SourceChanged,
    Unavailable,
    UsageError,
)
from cdc.sources.postgres.connection import SQLSTATES, Dsn, classify

DSN = Dsn.parse("postgresql://app:canary@db/shop")


def error(message: str, state: str | None) -> psycopg.Error:
    made = (
        psycopg.errors.lookup(state)(message)
        if state in psycopg.errors._sqlcodes
        else psycopg.OperationalError(message)
    )
    made.sqlstate = state
    return made


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", Unavailable),
        ("28000", UsageError),
        ("28P01", UsageError),
        ("3D000", UsageError),
        ("42501", UsageError),
        ("42P01", OperatorNeeded),
        ("42704", OperatorNeeded),
        ("0A000", UsageError),
        ("22021", OperatorNeeded),
        ("53300", Unavailable),
        ("53400", OperatorNeeded),
        ("53100", Unavailable),
        ("55000", OperatorNeeded),
        ("55006", SlotBusy),
        ("57P01", Unavailable),
        ("57P02", Unavailable),
        ("57P03", Unavailable),
        ("57P04", OperatorNeeded),
        ("57014", Unavailable),
        ("58P01", OperatorNeeded),
        ("40001", Unavailable),
        ("XX000", OperatorNeeded),
        ("XX001", OperatorNeeded),
        ("99999", OperatorNeeded),
    ],
)
def test_sqlstates(state: str, expected: type[CdcError]) -> None:
    """E-11: what may be tried again, what is a mistake, and what needs a person."""
    found = classify(error("something happened", state), DSN)
    assert type(found) is expected
    assert found.hint
    assert state in found.message


def test_every_rule_has_a_consistent_end() -> None:
    """E-11: what is retried may be restarted; what needs a person may not."""
    for rule in SQLSTATES.values():
        made = rule.error("x")
        assert made.exit_code == EXIT_RESTARTABLE if made.retry else made.exit_code in (EXIT_USAGE, EXIT_OPERATOR)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('cannot read from logical replication slot "s"', SlotUnusable),
        ('can no longer get changes from replication slot "s"', SlotUnusable),
        ('can no longer access replication slot "s"', SlotUnusable),
        ('replication slot "s" does not exist', SlotUnusable),
        ("This slot has been invalidated because it exceeded the maximum reserved size.", SlotUnusable),
        ('publication "p" does not exist', PublicationChanged),
        ("requested WAL segment 000000010000000000000001 has already been removed", SourceChanged),
        ("requested starting point 0/5 is ahead of the WAL flush position of this server 0/3", SourceChanged),
        ("invalid memory alloc request size 1073741824", OperatorNeeded),
    ],
)
@pytest.mark.parametrize("state", ["55000", "42704", "XX000", None])
def test_messages_that_say_more_than_their_state(message: str, expected: type[CdcError], state: str | None) -> None:
    """A-01, A-02, A-21, A-30: the texts of PostgreSQL 13 to 18."""
    found = classify(error(message, state), DSN)
    assert type(found) is expected
    assert not found.retry


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('FATAL:  password authentication failed for user "app"', UsageError),
        ("no pg_hba.conf entry for replication connection", UsageError),
        ('FATAL:  database "shop" does not exist', UsageError),
        ('could not translate host name "db" to address: Temporary failure in name resolution', Unavailable),
        ("connection refused", Unavailable),
        ("server closed the connection unexpectedly", Unavailable),
        ("SSL connection has been closed unexpectedly", Unavailable),
        ('certificate verify failed for "db"', UsageError),
    ],
)
def test_errors_of_libpq_itself(message: str, expected: type[CdcError]) -> None:
    """E-11: these have no SQLSTATE."""
    assert type(classify(psycopg.OperationalError(message), DSN)) is expected


@pytest.mark.parametrize(
    "message",
    [
        'insufficient data in "D" message',
        'message contents do not agree with length in message type "D"',
        'lost synchronization with server: got message type "x", length 1684234849',
        'unexpected field count in "D" message',
        "invalid socket",
    ],
)
def test_bytes_that_are_no_message_end_the_connection_only(message: str) -> None:
    """E-16: they were damaged on the way, so that it is opened again."""
    assert type(classify(psycopg.DatabaseError(message), DSN)) is Unavailable


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://app:canary@db/shop",
        "host=db user=app password=canary dbname=shop",
        "postgresql://db/x?password=canary",
    ],
)
def test_a_password_is_never_said(dsn: str) -> None:
    """E-03: not by the DSN, not by an error that quotes it."""
    parsed = Dsn.parse(dsn)
    assert "canary" not in f"{parsed} {parsed!r}"
    assert "canary" not in classify(psycopg.OperationalError(f"bad: {dsn} (canary)"), parsed).message


@pytest.mark.parametrize(
    "dsn", ["postgresql://app:canary%zz@db/x", "postgresql://app:canary@db:x y/z w", "host=db pass=canary x"]
)
def test_a_dsn_that_cannot_be_read_is_not_quoted(dsn: str) -> None:
    """E-03, E-12."""
    with pytest.raises(UsageError) as caught:
        Dsn.parse(dsn)
    assert "canary" not in str(caught.value)


def test_details_of_the_server_are_left_out() -> None:
    """E-04: DETAIL and CONTEXT quote values of rows."""
    found = classify(psycopg.OperationalError("a clear message\nDETAIL:  Key (email)=(canary) exists."), DSN)
    assert "canary" not in found.message
