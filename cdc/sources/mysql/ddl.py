"""What a statement in the log means for tables: found out from its words, since the log says nothing else about it.

sqlglot takes a statement apart into words (quotes, comments, both dialects); what an ALTER TABLE may have is from
https://dev.mysql.com/doc/refman/9.0/en/alter-table.html and https://mariadb.com/kb/en/alter-table/. What is not
understood is said to be so (`Unclear`), with everything that it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from sqlglot import Dialect, TokenType
from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import SqlglotError

from cdc.model.schema import TableName


class _Statements(MySQL):
    """MySQL, without the statements that sqlglot keeps as one text."""

    class Tokenizer(MySQL.Tokenizer):
        COMMANDS: ClassVar[set[TokenType]] = set()


class _AnsiQuotes(MySQL):
    """The same under sql_mode ANSI_QUOTES, which is also part of MariaDB's Oracle mode."""

    class Tokenizer(MySQL.Tokenizer):
        QUOTES: ClassVar[list[tuple[str, str] | str]] = ["'"]
        IDENTIFIERS: ClassVar[list[str | tuple[str, str]]] = ["`", '"']
        COMMANDS: ClassVar[set[TokenType]] = set()


class _PlainBackslashes(MySQL):
    """The same under NO_BACKSLASH_ESCAPES."""

    class Tokenizer(MySQL.Tokenizer):
        STRING_ESCAPES: ClassVar[list[str]] = ["'", '"']
        COMMANDS: ClassVar[set[TokenType]] = set()


class _AnsiQuotesAndPlainBackslashes(MySQL):
    """Under both."""

    class Tokenizer(_AnsiQuotes.Tokenizer):
        STRING_ESCAPES: ClassVar[list[str]] = ["'"]


_ANSI_QUOTES, _NO_BACKSLASH_ESCAPES = 1 << 2, 1 << 20  # of sql_mode
_DIALECTS = {
    0: _Statements,
    _ANSI_QUOTES: _AnsiQuotes,
    _NO_BACKSLASH_ESCAPES: _PlainBackslashes,
    _ANSI_QUOTES | _NO_BACKSLASH_ESCAPES: _AnsiQuotesAndPlainBackslashes,
}
_EXECUTED_COMMENT = re.compile(r"/\*M?!\d*(.*?)\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Truncated:
    """All rows of a table went."""

    table: TableName


@dataclass(frozen=True, slots=True)
class Dropped:
    """A table went, or all tables of a database: then the name is empty."""

    table: TableName


@dataclass(frozen=True, slots=True)
class Created:
    """A table came; `replaces` says that one of that name went before."""

    table: TableName
    replaces: bool


@dataclass(frozen=True, slots=True)
class Renamed:
    """A table has another name."""

    old: TableName
    new: TableName


@dataclass(frozen=True, slots=True)
class AddColumn:
    """A column came: its definition, and the column that it stands behind (None: the last; '': it is the first)."""

    name: str
    definition: str
    after: str | None


@dataclass(frozen=True, slots=True)
class DropColumn:
    """A column went."""

    name: str


@dataclass(frozen=True, slots=True)
class RenameColumn:
    """A column has another name, and nothing else."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class NewDefault:
    """A column has another default: its definition, or none if it has none, or one of another form."""

    name: str
    definition: str | None


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Something happened to rows or to columns that the log has no more of than this statement."""

    what: str


@dataclass(frozen=True, slots=True)
class NewCharset:
    """Columns that come from now on have another character set if they name none."""


Action = AddColumn | DropColumn | RenameColumn | NewDefault | NewCharset | Rewritten


@dataclass(frozen=True, slots=True)
class Altered:
    """A table was altered by some actions, in their order; none of them if no row and no column has to do with it."""

    table: TableName
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """Rows were changed by a statement that was logged as text (B-23)."""

    kind: str
    tables: frozenset[TableName]


@dataclass(frozen=True, slots=True)
class Unclear:
    """A statement that is not understood."""

    kind: str
    text: str

    def may_name(self, table: TableName) -> bool:
        """Whether the table's name occurs in it as a whole, anywhere and in any case."""
        spellings = {table.name, table.name.replace("`", "``"), table.name.replace('"', '""')}
        return any(re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", self.text, re.IGNORECASE) for name in spellings)


Effect = Truncated | Dropped | Created | Renamed | Altered | Written | Unclear

# Statements that have nothing to do with the rows or the shape of a table.
_HARMLESS = frozenset(
    "GRANT REVOKE FLUSH ANALYZE OPTIMIZE REPAIR CHECKSUM CHECK SET USE DO INSTALL UNINSTALL LOCK UNLOCK KILL "
    "RESET CHANGE START STOP SHUTDOWN SAVEPOINT RELEASE SIGNAL RESIGNAL PURGE HANDLER CACHE".split()
)
_HARMLESS_OBJECTS = frozenset(
    "VIEW TRIGGER PROCEDURE FUNCTION EVENT USER ROLE INDEX SERVER DATABASE SCHEMA TABLESPACE LOGFILE PACKAGE "
    "SEQUENCE RESOURCE LIBRARY SPATIAL FULLTEXT UNIQUE AGGREGATE DEFINER SQL ALGORITHM UNDO INSTANCE".split()
)
_WRITES = frozenset("INSERT UPDATE DELETE REPLACE LOAD CALL WITH EXECUTE MERGE".split())
# The first word of what ALTER TABLE may do without touching a value: indexes, constraints and options of the table.
_HARMLESS_ACTIONS = frozenset(
    "ENABLE DISABLE ENGINE TYPE COMMENT AUTO_INCREMENT ROW_FORMAT KEY_BLOCK_SIZE STATS_PERSISTENT "
    "STATS_AUTO_RECALC STATS_SAMPLE_PAGES ALGORITHM LOCK FORCE ORDER AVG_ROW_LENGTH CHECKSUM TABLE_CHECKSUM "
    "MAX_ROWS MIN_ROWS PACK_KEYS DELAY_KEY_WRITE COMPRESSION COMPRESSED ENCRYPTION ENCRYPTED CONNECTION "
    "INSERT_METHOD WITH WITHOUT CHECK UPGRADE ANALYZE OPTIMIZE REBUILD REPAIR REORGANIZE COALESCE PARTITION "
    "REMOVE SECONDARY_LOAD SECONDARY_UNLOAD SECONDARY_ENGINE TABLESPACE DATA INDEX UNION PAGE_CHECKSUM "
    "TRANSACTIONAL PAGE_COMPRESSED PAGE_COMPRESSION_LEVEL AUTOEXTEND_SIZE START WAIT NOWAIT "
    "IETF_QUOTES".split()
)
_CHARSETS = frozenset("DEFAULT CHARACTER CHARSET COLLATE".split())
_KEYS = frozenset("INDEX KEY UNIQUE FULLTEXT SPATIAL CONSTRAINT FOREIGN CHECK PERIOD".split())


def effects(text: str, schema: str, *, sql_mode: int = 0, folds_case: bool = False) -> list[Effect]:
    """What a statement does to tables, in order; nothing if it has to do with none.

    Args:
        schema: the database in use, which names without one are in.
        sql_mode: of the session that sent it.
        folds_case: the server keeps the names of tables in lower case, however they are written.
    """
    plain = _EXECUTED_COMMENT.sub(r" \1 ", text)
    dialect = _DIALECTS[sql_mode & (_ANSI_QUOTES | _NO_BACKSLASH_ESCAPES)]
    try:
        tokens = Dialect.get_or_raise(dialect).tokenize(plain)
    except SqlglotError:
        first = text.split(None, 1)
        return [Unclear(first[0].upper() if first else "", text)]
    single = [
        _Word(text, token.token_type in (TokenType.STRING, TokenType.IDENTIFIER), token.start, token.end)
        for token in tokens
        if token.token_type is not TokenType.SEMICOLON
        # What sqlglot takes for one word (`PRIMARY KEY`) is two.
        for text in (
            [token.text] if token.token_type in (TokenType.STRING, TokenType.IDENTIFIER) else token.text.split()
        )
    ]
    words = _Words(single, schema, plain, folds_case=folds_case)
    if not words.left:
        return []
    try:
        return _effects(words)
    except _NotUnderstood:
        return [Unclear(words.kind, text)]


class _NotUnderstood(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    is_quoted: bool
    start: int
    end: int


class _Words:
    """The words of a statement, taken one after the other."""

    def __init__(self, tokens: list[_Word], schema: str, text: str, *, folds_case: bool) -> None:
        self._tokens = tokens
        self._schema = schema
        self._text = text
        self._folds_case = folds_case
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._tokens)

    @property
    def kind(self) -> str:
        return " ".join(token.text.upper() for token in self._tokens[:2] if token.text.isidentifier())

    def peek(self, ahead: int = 0) -> str:
        """The word to come, in capitals; '' at the end, and for what is quoted."""
        if self._at + ahead >= len(self._tokens):
            return ""
        token = self._tokens[self._at + ahead]
        return "" if token.is_quoted else token.text.upper()

    def take(self, *expected: str) -> bool:
        """Pass over words if they come next."""
        if all(self.peek(number) == word for number, word in enumerate(expected)):
            self._at += len(expected)
            return True
        return False

    def name(self) -> str:
        if not self.left:
            raise _NotUnderstood
        token = self._tokens[self._at]
        if not token.is_quoted and not re.match(r"[\w$]", token.text):
            raise _NotUnderstood
        self._at += 1
        return token.text

    def table(self) -> TableName:
        first = self.name()
        # A name that begins with a digit after a point comes as one number.
        if self.take("."):
            return self._called(first, self.name())
        return self._called(self._schema, first)

    def database(self) -> TableName:
        """All tables of a database."""
        return self._called(self.name(), "")

    def _called(self, schema: str, name: str) -> TableName:
        return TableName(schema.lower(), name.lower()) if self._folds_case else TableName(schema, name)

    def rest_of_action(self) -> list[_Word]:
        """Everything up to the next comma that is in no parentheses, which is passed over."""
        depth, begin = 0, self._at
        while self.left:
            word = self.peek()
            if word == "," and depth == 0:
                break
            depth += (word == "(") - (word == ")")
            self._at += 1
        found = self._tokens[begin : self._at]
        self.take(",")
        return found

    def text_of(self, tokens: list[_Word]) -> str:
        """What stands in the statement from the first of some words to the last."""
        return self._text[tokens[0].start : tokens[-1].end + 1] if tokens else ""

    def tables(self) -> frozenset[TableName]:
        """Every name that could be one of a table."""
        found = set()
        for number, token in enumerate(self._tokens):
            before = self._tokens[number - 1].text if number else ""
            follows = self._tokens[number + 1].text if number + 1 < len(self._tokens) else ""
            if before == "." and number > 1:
                found.add(self._called(self._tokens[number - 2].text, token.text))
            elif follows != ".":
                found.add(self._called(self._schema, token.text))
        return frozenset(found)


def _effects(words: _Words) -> list[Effect]:
    verb = words.peek()
    if verb in _WRITES:
        return [Written(verb, words.tables())]
    if verb in _HARMLESS:
        return []
    if verb == "TRUNCATE":
        words.take("TRUNCATE")
        words.take("TABLE")
        return [Truncated(words.table())]
    if verb == "RENAME":
        return list(_rename(words))
    if verb == "DROP":
        return list(_drop(words))
    if verb == "CREATE":
        return list(_create(words))
    if verb == "ALTER":
        return list(_alter(words))
    if verb == "IMPORT":  # IMPORT TABLE FROM
        raise _NotUnderstood
    raise _NotUnderstood


def _rename(words: _Words) -> Iterator[Effect]:
    words.take("RENAME")
    if words.take("USER"):
        return
    if not (words.take("TABLE") or words.take("TABLES")):
        raise _NotUnderstood
    words.take("IF", "EXISTS")
    while True:
        old = words.table()
        if words.take("WAIT"):
            words.name()
        words.take("NOWAIT")
        if not words.take("TO"):
            raise _NotUnderstood
        yield Renamed(old, words.table())
        if not words.take(","):
            break
    if words.left:
        raise _NotUnderstood


def _drop(words: _Words) -> Iterator[Effect]:
    words.take("DROP")
    if words.peek() in ("TEMPORARY", "PREPARE") or words.peek() in _HARMLESS_OBJECTS - {"DATABASE", "SCHEMA"}:
        return
    if words.take("DATABASE") or words.take("SCHEMA"):
        words.take("IF", "EXISTS")
        yield Dropped(words.database())
        return
    if not (words.take("TABLE") or words.take("TABLES")):
        raise _NotUnderstood
    words.take("IF", "EXISTS")
    while True:
        yield Dropped(words.table())
        if not words.take(","):
            return


def _create(words: _Words) -> Iterator[Effect]:
    words.take("CREATE")
    replaces = words.take("OR", "REPLACE")
    if words.peek() == "TEMPORARY" or words.peek() in _HARMLESS_OBJECTS:
        return
    words.take("ONLINE")
    if not words.take("TABLE"):
        raise _NotUnderstood
    words.take("IF", "NOT", "EXISTS")
    yield Created(words.table(), replaces)


def _alter(words: _Words) -> Iterator[Effect]:
    words.take("ALTER")
    if words.peek() in _HARMLESS_OBJECTS:
        return
    while words.take("ONLINE") or words.take("OFFLINE") or words.take("IGNORE"):
        pass
    if not words.take("TABLE"):
        raise _NotUnderstood
    words.take("IF", "EXISTS")
    table = words.table()
    if words.take("WAIT"):
        words.name()
    words.take("NOWAIT")
    actions: list[Action] = []
    renamed: Renamed | None = None
    while words.left:
        found = _action(words)
        if isinstance(found, TableName):
            renamed = Renamed(table, found if found.schema else TableName(table.schema, found.name))
        else:
            actions += found
    yield Altered(table, tuple(actions))
    if renamed is not None:
        yield renamed


def _action(words: _Words) -> list[Action] | TableName:
    """One action of an ALTER TABLE, up to its comma: what it does to columns, or the table's new name."""
    verb = words.peek()
    if words.take("ADD"):
        return _add(words)
    if words.take("DROP"):
        return _drop_action(words)
    if words.take("RENAME"):
        return _rename_action(words)
    if words.take("CHANGE") or words.take("MODIFY"):
        words.take("COLUMN")
        words.take("IF", "EXISTS")
        name = words.name()
        words.rest_of_action()
        return [Rewritten(f"{verb} {name}")]
    if words.take("ALTER"):
        return _alter_action(words)
    if words.take("CONVERT") or words.take("EXCHANGE") or words.take("IMPORT") or words.take("TRUNCATE"):
        words.rest_of_action()
        return [Rewritten(f"{verb} of a partition or a tablespace" if verb != "CONVERT" else verb)]
    if words.take("DISCARD"):
        words.rest_of_action()
        return [Rewritten(verb)]
    if words.peek() in _CHARSETS:
        words.rest_of_action()
        return [NewCharset()]
    if words.peek() in _HARMLESS_ACTIONS:
        # Options of a table need no comma between them.
        follows = {"" if word.is_quoted else word.text.upper() for word in words.rest_of_action()}
        return [NewCharset()] if follows & _CHARSETS else []
    raise _NotUnderstood


def _add(words: _Words) -> list[Action]:
    if words.take("SYSTEM", "VERSIONING"):
        words.rest_of_action()
        return [Rewritten("ADD SYSTEM VERSIONING")]
    if words.peek() == "PARTITION" or words.peek() in _KEYS or words.peek() == "PRIMARY":
        tokens = words.rest_of_action()
        has_key = any(a.text.upper() == "PRIMARY" for a in tokens)
        return [Rewritten("ADD PRIMARY KEY")] if has_key else []
    words.take("COLUMN")
    conditional = words.take("IF", "NOT", "EXISTS")
    if words.peek() == "(":
        words.rest_of_action()
        return [Rewritten("ADD of several columns")]
    name = words.name()
    tokens = words.rest_of_action()
    if conditional or not tokens:
        return [Rewritten(f"ADD {name}")]
    after: str | None = None
    plain = ["" if token.is_quoted else token.text.upper() for token in tokens]
    if plain[-1] == "FIRST":
        after, tokens = "", tokens[:-1]
    elif len(plain) > 1 and plain[-2] == "AFTER":
        after, tokens = tokens[-1].text, tokens[:-2]
    return [AddColumn(name, words.text_of(tokens), after)]


def _drop_action(words: _Words) -> list[Action]:
    if words.peek() in ("PRIMARY", "PARTITION", "SYSTEM"):
        what = words.peek()
        words.rest_of_action()
        return [Rewritten(f"DROP {what}")]
    if words.peek() in _KEYS:
        words.rest_of_action()
        return []
    words.take("COLUMN")
    conditional = words.take("IF", "EXISTS")
    name = words.name()
    words.rest_of_action()
    return [Rewritten(f"DROP {name}")] if conditional else [DropColumn(name)]


def _alter_action(words: _Words) -> list[Action]:
    """Of a column's default, or of an index's or a constraint's state."""
    if words.peek() in ("INDEX", "KEY", "CHECK", "CONSTRAINT"):
        words.rest_of_action()
        return []
    words.take("COLUMN")
    words.take("IF", "EXISTS")
    name = words.name()
    if words.take("SET", "VISIBLE") or words.take("SET", "INVISIBLE"):
        words.rest_of_action()
        return []
    is_set = words.take("SET", "DEFAULT")
    tokens = words.rest_of_action()
    return [NewDefault(name, f"DEFAULT {words.text_of(tokens)}" if is_set and tokens else None)]


def _rename_action(words: _Words) -> list[Action] | TableName:
    if words.peek() in ("INDEX", "KEY"):
        words.rest_of_action()
        return []
    if words.take("COLUMN"):
        if words.take("IF", "EXISTS"):
            words.rest_of_action()
            return [Rewritten("RENAME COLUMN")]
        old = words.name()
        if not words.take("TO"):
            raise _NotUnderstood
        new = words.name()
        words.rest_of_action()
        return [RenameColumn(old, new)]
    if not (words.take("TO") or words.take("AS")):
        words.take("=")
    table = words.table()
    words.rest_of_action()
    return table
