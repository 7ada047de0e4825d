"""What applications write into the log with pg_logical_emit_message: Message messages of pgoutput, no I/O."""

from __future__ import annotations

from cdc.errors import DecodeError
from cdc.model.segment import Note

HEARTBEAT = "cdc.heartbeat"  # prefix of the messages that cdc itself writes into the log
_HEAD = 9  # flags, place in the log
_IN_TRANSACTION = 1


def read_note(body: bytes, transaction: int, ordinal: int, number: int) -> Note | None:
    """The note that the body of a message is; None for one of cdc's own, and for one that is in no transaction.

    Raises:
        DecodeError: it has another length than it says.
    """
    prefix, end, rest = body[_HEAD:].partition(b"\0")
    length = int.from_bytes(rest[:4], "big")
    if len(body) <= _HEAD or not end or len(rest) != 4 + length:
        raise DecodeError("A message that an application wrote into the log is longer or shorter than it says.")
    name = prefix.decode(errors="backslashreplace")
    if not body[0] & _IN_TRANSACTION or name == HEARTBEAT:
        return None
    return Note(transaction, ordinal, number, name, as_text(rest[4:]))


def as_text(content: bytes) -> str:
    """Bytes as text, or as hexadecimal digits if they are not text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"\\x{content.hex()}"
