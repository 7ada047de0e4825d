"""Whether a position that a server, or an application, has written lies before a checkpoint."""

from __future__ import annotations

import re

import orjson

from cdc.errors import DecodeError, UsageError
from cdc.sources.mysql.gtid import MariaDbGtids, MySqlGtids

_FILE = re.compile(r"(.+\.)(\d{6,}):(\d{1,19})")


def lies_before(wanted: str, state: str) -> bool:
    """Whether everything up to a position lies before that of a state: GTIDs, or a file and a byte.

    Raises:
        UsageError: it is neither, or the server of the state has none of that kind.
    """
    wanted, known = wanted.strip(), orjson.loads(state)  # not all of it: somebody waits, and looks again and again
    gtids, ours = known["gtids"], known["place"]
    if (place := _FILE.fullmatch(wanted)) is not None:
        return _is_passed(place, ours["file"], ours["offset"])
    try:
        if known["flavor"] == "mariadb":
            return not MariaDbGtids.parse(wanted).exceeds(gtids)
        if not gtids:
            raise UsageError(
                f"The server has no GTIDs: {wanted!r} cannot be found there.",
                hint="Write it as SHOW BINARY LOG STATUS has it: binlog.000001:4.",
            )
        return not MySqlGtids.parse(wanted).exceeds(gtids)
    except DecodeError as error:
        raise UsageError(
            f"{wanted!r} is not a position of this source: {error.message}",
            hint="Write it as the server does: a set of GTIDs, or binlog.000001:4.",
        ) from error


def _is_passed(place: re.Match[str], file: str, offset: int) -> bool:
    """Files are numbered; those of another name are another server's."""
    ours = re.fullmatch(r"(.+\.)(\d+)", file)
    if ours is None or ours[1] != place[1]:
        raise UsageError(
            f"{place[0]} is in a file whose name is not that of the log that is followed, {file}.",
            hint="Name a file of the server that the pipeline follows.",
        )
    return (int(place[2]), int(place[3])) <= (int(ours[2]), offset)
