"""What the actions of an ALTER TABLE do.

https://dev.mysql.com/doc/refman/9.0/en/alter-table.html and https://mariadb.com/kb/en/alter-table/. Only what is named
here is known to leave rows alone (integration/test_mysql_statements.py runs it); anything else is `Rewritten`.
"""

from __future__ import annotations

from cdc.model.schema import TableName
from cdc.sources.mysql.effects import (
    Action,
    AddColumn,
    AddKey,
    Altered,
    ChangeColumn,
    Created,
    DropColumn,
    DropIndex,
    DropKey,
    Dropped,
    Effect,
    Moved,
    NewCharset,
    NewDefault,
    RenameColumn,
    Renamed,
    RenameIndex,
    Rewritten,
    Unproven,
)
from cdc.sources.mysql.words import NotUnderstood, Word, Words

# Options of a table with one word behind them, none of which touches a value.
_OPTIONS = frozenset(
    "COMMENT AUTO_INCREMENT ROW_FORMAT KEY_BLOCK_SIZE STATS_PERSISTENT STATS_AUTO_RECALC STATS_SAMPLE_PAGES ALGORITHM "
    "LOCK AVG_ROW_LENGTH CHECKSUM TABLE_CHECKSUM MAX_ROWS MIN_ROWS PACK_KEYS DELAY_KEY_WRITE COMPRESSION "
    "PAGE_CHECKSUM TRANSACTIONAL PAGE_COMPRESSED PAGE_COMPRESSION_LEVEL AUTOEXTEND_SIZE ENCRYPTION".split()
)
# Engines that keep every row and every value of a table that is moved into them.
_ENGINES = frozenset(("INNODB", "MYISAM", "ARIA", "MEMORY"))
_KEYS = frozenset("INDEX KEY UNIQUE FULLTEXT SPATIAL CONSTRAINT FOREIGN CHECK".split())
# What is done to partitions named in a list: to their rows, or to how they are kept.
_MOVES_ROWS = frozenset("DROP TRUNCATE REPAIR DISCARD IMPORT".split())
_KEEPS_ROWS = frozenset("ADD ANALYZE CHECK OPTIMIZE REBUILD COALESCE REORGANIZE".split())
_WHOLE_TABLESPACE = frozenset(("DISCARD", "IMPORT"))


def alter_table(words: Words, *, is_usual: bool) -> list[Effect]:
    """The effects of an ALTER TABLE, from behind ALTER on.

    Args:
        is_usual: the names of types mean what they usually do.

    Raises:
        NotUnderstood: it does not say which table.
    """
    loses_rows = False
    while modifier := words.take_any("ONLINE", "OFFLINE", "IGNORE"):
        loses_rows |= modifier == "IGNORE"  # those whose unique keys are there twice
    words.expect("TABLE")
    words.take("IF", "EXISTS")
    table = words.table()
    if words.take("WAIT"):
        words.name()
    words.take("NOWAIT")
    found = _Actions(table, is_usual=is_usual)
    try:
        while words.left:
            found.take(words)
    except NotUnderstood:
        others = words.tables() - {table}
        found.actions.append(Rewritten("something that cdc does not know"))
        found.others.append(Unproven(words.kind, others, frozenset(), reshapes=True))
    if loses_rows:
        found.actions.append(Moved("IGNORE"))
    return [Altered(table, tuple(found.actions)), *found.others, *found.renames]


class _Actions:
    """Those that were found so far.

    Attributes:
        actions: on the table.
        others: what happened to other tables.
        renames: the table's new name, which it has after everything else.
    """

    def __init__(self, table: TableName, *, is_usual: bool) -> None:
        self.actions: list[Action] = []
        self.others: list[Effect] = []
        self.renames: list[Renamed] = []
        self._table = table
        self._is_usual = is_usual

    def take(self, words: Words) -> None:
        """Take the next action, up to its comma. Raises NotUnderstood."""
        if self._takes_partitions(words):
            return
        if words.take("ORDER", "BY"):
            _pass_order(words)
            return
        action = words.action()
        if action.take("RENAME"):
            self._rename(action)
        elif action.take("ADD"):
            self._add(action)
        elif action.take("DROP"):
            self._drop(action)
        elif verb := action.take_any("CHANGE", "MODIFY"):
            self._change(action, verb)
        elif action.take("ALTER"):
            self._alter(action)
        elif action.take("CONVERT", "TO"):
            action.rest()
            self.actions.append(Rewritten("CONVERT TO"))
        elif action.peek() in _WHOLE_TABLESPACE:
            self.actions.append(Moved(f"{action.name().upper()} TABLESPACE"))
            action.expect("TABLESPACE")
        else:
            self._options(action)
        action.end()

    def _takes_partitions(self, words: Words) -> bool:
        """What is done to partitions stands alone, and has lists of names with commas in them."""
        verb = words.peek()
        if verb == "PARTITION" or (verb == "REMOVE" and words.peek(1) == "PARTITIONING"):
            words.rest()
        elif verb == "EXCHANGE" and words.peek(1) == "PARTITION":
            words.take(verb, "PARTITION")
            words.name()
            words.expect("WITH", "TABLE")
            self.actions.append(Moved("EXCHANGE PARTITION"))
            self.others.append(Unproven(verb, frozenset({words.table()}), frozenset(), reshapes=False))
            if words.take_any("WITH", "WITHOUT"):
                words.expect("VALIDATION")
        elif verb == "CONVERT" and words.peek(1) in ("PARTITION", "TABLE"):
            self._convert(words)
        elif words.peek(1) == "PARTITION" and verb in _MOVES_ROWS | _KEEPS_ROWS:
            words.rest()
            if verb in _MOVES_ROWS:
                self.actions.append(Moved(f"{verb} PARTITION"))
        else:
            return False
        return True

    def _convert(self, words: Words) -> None:
        """A partition becomes a table, or a table becomes a partition (MariaDB)."""
        self.actions.append(Moved("CONVERT"))
        if words.take("CONVERT", "PARTITION"):
            words.name()
            words.expect("TO", "TABLE")
            self.others.append(Created(words.table(), is_new=True))
        else:
            words.expect("CONVERT", "TABLE")
            self.others.append(Dropped(words.table()))
        words.rest()

    def _rename(self, words: Words) -> None:
        if words.take("COLUMN"):
            if words.take("IF", "EXISTS"):
                words.rest()
                self.actions.append(Rewritten("RENAME COLUMN IF EXISTS"))
                return
            old = words.name()
            words.expect("TO")
            self.actions.append(RenameColumn(old, words.name()))
        elif words.take_any("INDEX", "KEY"):
            words.take("IF", "EXISTS")
            old = words.name()
            words.expect("TO")
            self.actions.append(RenameIndex(old, words.name()))
        else:
            words.take_any("TO", "AS", "=")
            self.renames.append(Renamed(((self._table, words.table()),)))

    def _add(self, words: Words) -> None:
        is_vector = words.peek() == "VECTOR" and words.peek(1) in ("INDEX", "KEY", "(")
        if (words.peek(), words.peek(1)) in (("SYSTEM", "VERSIONING"), ("PERIOD", "FOR")):
            words.rest()
            self.actions.append(Rewritten("ADD SYSTEM VERSIONING"))
            return
        if words.take("PRIMARY", "KEY", "("):
            self._add_key(words)
            return
        if is_vector or words.peek() in _KEYS or words.peek() == "PRIMARY":
            if any(word.plain == "PRIMARY" for word in words.rest()):
                self.actions.append(Rewritten("ADD PRIMARY KEY"))
            return
        words.take("COLUMN")
        if words.take("IF", "NOT", "EXISTS") or words.peek() == "(":
            words.rest()
            self.actions.append(Rewritten("ADD of several columns, or of one that may be there"))
            return
        name = words.name()
        definition, after = _defined(words)
        if not definition or not self._is_usual:
            self.actions.append(Rewritten("ADD COLUMN"))
        else:
            self.actions.append(AddColumn(name, words.text_of(definition), after))

    def _add_key(self, words: Words) -> None:
        """A primary key of whole columns; one of their first letters, and what is said of its index, is `Rewritten`."""
        columns = [words.name()]
        while words.take(","):
            columns.append(words.name())
        words.take(")")
        self.actions.append(Rewritten("ADD PRIMARY KEY") if words.rest() else AddKey(tuple(columns)))

    def _change(self, words: Words, verb: str) -> None:
        words.take("COLUMN")
        if words.take("IF", "EXISTS") or not self._is_usual:
            words.rest()
            self.actions.append(Rewritten(verb))
            return
        old = words.name()
        new = words.name() if verb == "CHANGE" else old
        definition, after = _defined(words)
        self.actions.append(ChangeColumn(old, new, words.text_of(definition), after))

    def _drop(self, words: Words) -> None:
        if words.take("PRIMARY", "KEY"):
            self.actions.append(DropKey())
        elif (words.peek(), words.peek(1)) in (("SYSTEM", "VERSIONING"), ("PERIOD", "FOR")):
            words.rest()
            self.actions.append(Rewritten("DROP of times"))
        elif words.take("FOREIGN", "KEY") or words.take("CHECK"):
            words.take("IF", "EXISTS")
            words.name()
        elif words.take_any("INDEX", "KEY", "CONSTRAINT"):
            words.take("IF", "EXISTS")
            self.actions.append(DropIndex(words.name()))
        else:
            words.take("COLUMN")
            if words.take("IF", "EXISTS"):
                words.rest()
                self.actions.append(Rewritten("DROP COLUMN IF EXISTS"))
                return
            self.actions.append(DropColumn(words.name()))
            words.take_any("RESTRICT", "CASCADE")

    def _alter(self, words: Words) -> None:
        """A column's default, or the state of an index or of a constraint."""
        if words.take_any("INDEX", "KEY", "CHECK", "CONSTRAINT"):
            words.take("IF", "EXISTS")
            words.name()
            words.take("NOT")
            if not words.take_any("VISIBLE", "INVISIBLE", "IGNORED", "ENFORCED"):
                raise NotUnderstood
            return
        words.take("COLUMN")
        words.take("IF", "EXISTS")
        name = words.name()
        if words.take("SET", "VISIBLE") or words.take("SET", "INVISIBLE"):
            return
        if words.take("DROP", "DEFAULT"):
            self.actions.append(NewDefault(name, None))
            return
        words.expect("SET", "DEFAULT")
        self.actions.append(NewDefault(name, f"DEFAULT {words.text_of(words.rest())}"))

    def _options(self, words: Words) -> None:
        """Options of a table need no comma between them."""
        if not words.left:
            raise NotUnderstood
        while words.left:
            option = words.peek()
            if words.take("FORCE") or words.take("ENABLE", "KEYS") or words.take("DISABLE", "KEYS"):
                continue
            if words.take_any("WITH", "WITHOUT"):
                words.expect("VALIDATION")
                continue
            words.take("DEFAULT")
            if words.take("CHARACTER", "SET") or words.take_any("CHARSET", "COLLATE"):
                self.actions.append(NewCharset())
            elif words.take_any("ENGINE", "TYPE"):
                words.take("=")
                engine = words.value().upper()
                if engine not in _ENGINES:
                    self.actions.append(Moved(f"ENGINE {engine}"))
                continue
            elif option in _OPTIONS:
                words.take(option)
            else:
                raise NotUnderstood
            words.take("=")
            words.value()


def _pass_order(words: Words) -> None:
    """Names of columns, with commas between them."""
    while True:
        words.name()
        while words.take("."):
            words.name()
        words.take_any("ASC", "DESC")
        if not words.take(","):
            return


def _defined(words: Words) -> tuple[list[Word], str | None]:
    """A column's definition, and what it stands behind: '' if it is the first, None if that is not said."""
    definition = words.rest()
    if definition and definition[-1].plain == "FIRST":
        return definition[:-1], ""
    if len(definition) > 1 and definition[-2].plain == "AFTER":
        return definition[:-2], definition[-1].text
    return definition, None
