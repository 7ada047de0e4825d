"""What a statement in the log means for tables: found out from its words, since the log says nothing else about it.

A list of dangerous statements can never be complete. So this is the other way round: a statement leaves tables alone if
its kind is one of `_PROVEN` (integration/test_mysql_statements.py runs every one of them on the servers and compares),
it has an exact effect, or it is `Unproven` or `Unreadable`, with all tables that it may concern.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cdc.model.schema import TableName
from cdc.sources.mysql.alter import alter_table
from cdc.sources.mysql.effects import (
    Altered,
    Created,
    DropIndex,
    Dropped,
    Effect,
    Renamed,
    Truncated,
    Unproven,
    Unreadable,
)
from cdc.sources.mysql.words import NotUnderstood, Words, cut


def _phrases(text: str) -> list[tuple[str, ...]]:
    return [tuple(phrase.split()) for phrase in text.split("|")]


# The first words of statements that change no row and no column of any table.
_PROVEN = _phrases(
    "GRANT|REVOKE|FLUSH|ANALYZE TABLE|ANALYZE TABLES|OPTIMIZE TABLE|OPTIMIZE TABLES|SET PASSWORD|SET DEFAULT ROLE"
    "|RENAME USER|INSTALL COMPONENT|UNINSTALL COMPONENT|INSTALL PLUGIN|UNINSTALL PLUGIN"
)
# What comes, goes or changes without any table; the first four stand before views and stored programs only.
_PROVEN_OBJECTS = _phrases(
    "ALGORITHM|DEFINER|SQL SECURITY|AGGREGATE FUNCTION|VIEW|TRIGGER|PROCEDURE|FUNCTION|EVENT|PACKAGE|USER|ROLE|SERVER"
    "|TABLESPACE|UNDO TABLESPACE|SPATIAL REFERENCE SYSTEM|SEQUENCE|TEMPORARY|JSON RELATIONAL DUALITY VIEW|LIBRARY"
)
# Statements that change rows, but no columns: they are in the log as text if the session says so.
_WRITES = frozenset("INSERT UPDATE DELETE REPLACE LOAD CALL WITH SELECT DO VALUES REPAIR".split())
# Variables that a statement may be run with, and does the same as without.
_NEUTRAL_VARIABLES = frozenset(
    "MAX_STATEMENT_TIME LOCK_WAIT_TIMEOUT INNODB_LOCK_WAIT_TIMEOUT LONG_QUERY_TIME SLOW_QUERY_LOG ALTER_ALGORITHM "
    "SORT_BUFFER_SIZE JOIN_BUFFER_SIZE TMP_TABLE_SIZE MAX_HEAP_TABLE_SIZE BINLOG_ALTER_TWO_PHASE".split()
)
# Of sql_mode: REAL is FLOAT, or (ORACLE, MAXDB, and the versions before 4.1) DATE and TIMESTAMP are other types.
_OTHER_TYPES = 1 | 1 << 9 | 1 << 12 | 1 << 16 | 1 << 17


def effects(
    text: str, schema: str, *, sql_mode: int = 0, folds_case: bool = False, is_mariadb: bool = True
) -> list[Effect]:
    """What a statement does to tables, in order; nothing if it certainly has to do with none.

    Args:
        schema: the database in use, which names without one are in.
        sql_mode: of the session that sent it.
        folds_case: the server keeps the names of tables in lower case, however they are written.
        is_mariadb: the server is, which has comments of its own that are executed.
    """
    try:
        single = cut(text, sql_mode=sql_mode, is_mariadb=is_mariadb)
    except NotUnderstood:
        return [unreadable(text, schema, folds_case=folds_case)]
    words = Words(text, single, schema, folds_case=folds_case)
    if not words.left:
        return []
    try:
        is_usual = _pass_variables(words)
        found = list(_effects(words, is_usual=is_usual and not sql_mode & _OTHER_TYPES))
    except NotUnderstood:
        return [_unproven(words, reshapes=True)]
    if not is_usual and any(not isinstance(effect, Unproven) for effect in found):
        found.append(Unproven(words.kind, words.tables(), frozenset(), reshapes=False))
    return found


def unreadable(text: str, schema: str, *, folds_case: bool) -> Unreadable:
    """A statement of which no more is known than some of its characters."""
    return Unreadable(text, schema.lower() if folds_case else schema)


def _unproven(words: Words, *, reshapes: bool) -> Unproven:
    """A statement may change whatever it names, and, by what it calls or sets off, all there is in a database."""
    tables = words.tables()
    return Unproven(words.kind, tables, frozenset({words.schema, *(name.schema for name in tables)}), reshapes)


def _pass_variables(words: Words) -> bool:
    """Pass over MariaDB's `SET STATEMENT ... FOR`; whether what follows does the same as without it."""
    is_neutral = True
    while words.take("SET", "STATEMENT"):
        while not words.take("FOR"):
            is_neutral &= words.peek() in _NEUTRAL_VARIABLES
            words.name()
            words.expect("=")
            while words.left and words.peek() not in (",", "FOR"):
                words.value()
            words.take(",")
    return is_neutral


def _effects(words: Words, *, is_usual: bool) -> Iterable[Effect]:
    if any(_begins(words, phrase) for phrase in _PROVEN):
        return []
    if words.peek() in _WRITES:
        return [_unproven(words, reshapes=False)]
    if words.take("TRUNCATE"):
        words.take("TABLE")
        return [Truncated(_last_table(words))]
    if words.take("RENAME"):
        return [_rename(words)]
    if words.take("DROP"):
        return _drop(words)
    if words.take("CREATE"):
        return _create(words)
    if words.take("ALTER"):
        if any(_begins(words, phrase) for phrase in _PROVEN_OBJECTS) or words.peek() in ("DATABASE", "SCHEMA"):
            return []
        return alter_table(words, is_usual=is_usual)
    raise NotUnderstood


def _begins(words: Words, phrase: tuple[str, ...]) -> bool:
    return all(words.peek(number) == word for number, word in enumerate(phrase))


def _waits(words: Words) -> None:
    """MariaDB: for how long a statement waits for a lock."""
    if words.take("WAIT"):
        words.value()
    words.take("NOWAIT")


def _last_table(words: Words) -> TableName:
    table = words.table()
    _waits(words)
    words.end()
    return table


def _rename(words: Words) -> Renamed:
    if not words.take_any("TABLE", "TABLES"):
        raise NotUnderstood
    words.take("IF", "EXISTS")
    names: list[tuple[TableName, TableName]] = []
    while not names or words.take(","):
        old = words.table()
        _waits(words)
        words.expect("TO")
        names.append((old, words.table()))
    words.end()
    return Renamed(tuple(names))


def _drop(words: Words) -> Iterator[Effect]:
    if any(_begins(words, phrase) for phrase in _PROVEN_OBJECTS):
        return
    words.take_any("ONLINE", "OFFLINE")
    if words.take("INDEX"):
        words.take("IF", "EXISTS")
        index = words.name()
        words.expect("ON")
        yield Altered(words.table(), (DropIndex(index),))
        return
    if words.take_any("DATABASE", "SCHEMA"):
        words.take("IF", "EXISTS")
        yield Dropped(words.database())
        words.end()
        return
    if not words.take_any("TABLE", "TABLES"):
        raise NotUnderstood
    words.take("IF", "EXISTS")
    yield Dropped(words.table())
    while words.take(","):
        yield Dropped(words.table())
    _waits(words)
    words.take_any("RESTRICT", "CASCADE")
    words.end()


def _create(words: Words) -> Iterator[Effect]:
    replaces = words.take("OR", "REPLACE")
    if words.peek() == "SEQUENCE" and replaces:
        raise NotUnderstood  # a sequence is a table
    if any(_begins(words, phrase) for phrase in _PROVEN_OBJECTS):
        return
    if words.take_any("DATABASE", "SCHEMA"):
        if replaces:
            yield Dropped(words.database())
        return
    words.take_any("ONLINE", "OFFLINE")
    if words.take("TABLE"):
        is_new = not words.take("IF", "NOT", "EXISTS")
        yield Created(words.table(), is_new or replaces)
        return
    words.take_any("UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR")
    words.expect("INDEX")
    words.take("IF", "NOT", "EXISTS")
    index = words.name()
    while words.left and not words.take("ON"):
        words.value()  # USING, and how
    yield Altered(words.table(), (DropIndex(index),) if replaces else ())
