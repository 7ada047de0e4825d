"""What the user of a session may do, from what the server says that it was granted; roles that are active included.

MySQL: https://dev.mysql.com/doc/refman/9.0/en/show-grants.html, MariaDB: https://mariadb.com/kb/en/show-grants/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cdc.errors import CdcError, TableChanged, Unavailable
from cdc.model.schema import TableName
from cdc.sources.mysql.connection import Connection, reads_answers
from cdc.sources.mysql.select import quoted_table

UNREADABLE = "The user may not read all of its columns."
_NAME = r"(?:`(?:[^`]|``)*`|\*|[^\s.`]+)"
_GRANT = re.compile(rf"(GRANT|REVOKE) (.+?) ON (?:TABLE )?({_NAME})\.({_NAME}) (?:TO|FROM) ", re.IGNORECASE | re.DOTALL)
_RIGHT = re.compile(r"([A-Z][A-Z_ ]*?)\s*(\((?:[^()`]|`(?:[^`]|``)*`)*\))?\s*(?:,|$)", re.IGNORECASE)
_ALL = "ALL PRIVILEGES"
_SHOWN = "SELECT privileges FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
_PARTS = re.compile(r"\\?.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Granted:
    """Rights on everything, on the databases whose names fit a pattern, or on one table."""

    database: str
    table: str
    rights: frozenset[str]
    is_revoked: bool = False

    def covers(self, database: str, table: str) -> bool:
        in_database = self.database == "*" or _fits(database, self.database) or self.database == database
        return in_database and self.table in ("*", table)


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may do.

    Attributes:
        granted: on whole tables or more; rights on single columns are not rights on their table.
    """

    granted: tuple[_Granted, ...] = field(default=())

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Rights:
        """Read what SHOW GRANTS says."""
        found = []
        for line in lines:
            if match := _GRANT.match(line):
                verb, listed, database, table = match.groups()
                rights = frozenset(right.upper() for right, columns in _RIGHT.findall(listed) if not columns)
                found.append(_Granted(_unquoted(database), _unquoted(table), rights, verb.upper() == "REVOKE"))
        return cls(tuple(found))

    def may(self, right: str, database: str = "*", table: str = "*") -> bool:
        """Whether a right is granted on everything, on all of a database, or on a table."""
        relevant = [one for one in self.granted if one.covers(database, table) and {right, _ALL} & one.rights]
        # What is taken away again for one database (partial_revokes) counts before what is granted on everything.
        return bool(relevant) and not any(one.is_revoked for one in relevant)


@reads_answers
def grants(connection: Connection) -> list[str]:
    """What the session's user was granted, in the server's words."""
    return [str(row[0]) for row in connection.query("SHOW GRANTS")]


def rights_of(connection: Connection) -> Rights:
    """The rights of the session's user."""
    return Rights.parse(grants(connection))


@reads_answers
def unreadable(connection: Connection, tables: Iterable[TableName]) -> dict[TableName, str]:
    """Which of some tables the user may not read whole, and why (M20, M21).

    Servers show nobody a column that they may not read: a table of which some columns are granted looks like one that
    has no more, while the log has the rows of all.
    """
    rights = rights_of(connection)
    doubtful = [name for name in tables if not rights.may("SELECT", name.schema, name.name)]
    return {name: why for name in doubtful if (why := _refused(connection, name)) is not None}


def _refused(connection: Connection, name: TableName) -> str | None:
    """Why the table cannot be read whole; None if the server lets the user, by whatever right."""
    shown = connection.query(_SHOWN, name.schema, name.name)
    try:
        connection.query(f"SELECT * FROM {quoted_table(name)} LIMIT 0")
        connection.query(f"SHOW CREATE TABLE {quoted_table(name)}")  # refused to who has rights on columns only
        is_whole = all("select" in str(rights).lower() for (rights,) in shown)
    except TableChanged:  # it is gone
        return None
    except Unavailable:  # a lost connection says nothing about rights
        raise
    except CdcError:
        is_whole = False
    if is_whole:
        return None
    user, _, host = str(connection.value("SELECT CURRENT_USER()")).rpartition("@")
    return f"{UNREADABLE} Try: GRANT SELECT ON {quoted_table(name)} TO '{user}'@'{host}';"


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _fits(name: str, pattern: str) -> bool:
    """Whether a database is one that a grant means, in which `_` and `%` stand for others unless they are escaped."""
    wild = {"_": ".", "%": ".*"}
    parts = (wild.get(part) or re.escape(part.removeprefix("\\")) for part in _PARTS.findall(pattern))
    return re.fullmatch("".join(parts), name, re.DOTALL) is not None
