"""The words of a statement, as the servers cut it up. https://dev.mysql.com/doc/refman/9.0/en/language-structure.html"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from cdc.model.schema import TableName

ANSI_QUOTES, NO_BACKSLASH_ESCAPES = 1 << 2, 1 << 20  # of sql_mode
_TAKES_AN_OBJECT = frozenset("CREATE ALTER DROP RENAME SET INSTALL UNINSTALL IMPORT REPAIR".split())
_MOST_WORDS = 200_000  # of one statement; more are not looked at


class NotUnderstood(Exception):
    """What comes next is not what is known to come there."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word, or one mark.

    Attributes:
        text: without quotes.
        plain: in capitals; '' if it is quoted.
        is_text: it is a literal text, and no name.
        start, end: characters of the statement that it takes.
    """

    text: str
    plain: str
    is_text: bool
    start: int
    end: int


def cut(text: str, *, sql_mode: int, is_mariadb: bool) -> list[Word]:
    """A statement's words.

    Comments that the server executes count as what is in them. Those of another version are plain ones in the log,
    since servers take their mark away before they write it (seen with MySQL 9.7, MariaDB 10.11 and 11.8).

    Raises:
        NotUnderstood: a quotation or a comment does not end.
    """
    lexemes = _lexemes(sql_mode & (ANSI_QUOTES | NO_BACKSLASH_ESCAPES), is_mariadb=is_mariadb)
    words: list[Word] = []
    at, executed = 0, 0
    while at < len(text):
        found = lexemes.match(text, at)
        if found is None or len(words) > _MOST_WORDS:
            raise NotUnderstood
        at, kind, lexeme = found.end(), found.lastgroup, found[0]
        if kind == "executed":
            executed += 1
        elif kind == "end":
            executed -= 1
            if executed < 0:
                raise NotUnderstood
        elif kind in ("word", "mark"):
            words.append(Word(lexeme, lexeme.upper(), False, found.start(), at))
        elif kind in ("name", "text"):
            quote = lexeme[0]
            words.append(Word(lexeme[1:-1].replace(quote * 2, quote), "", kind == "text", found.start(), at))
    if executed:
        raise NotUnderstood
    while words and words[-1].plain == ";":
        words.pop()
    return words


@cache  # there are eight, of which a server needs one or two
def _lexemes(mode: int, *, is_mariadb: bool) -> re.Pattern[str]:
    escape = "" if mode & NO_BACKSLASH_ESCAPES else r"|\\."
    inside = "" if mode & NO_BACKSLASH_ESCAPES else r"\\"
    single = rf"'(?:[^'{inside}]|''{escape})*+'"
    if mode & ANSI_QUOTES:
        name, literal = r"`(?:[^`]|``)*+`|\"(?:[^\"]|\"\")*+\"", single
    else:
        name, literal = r"`(?:[^`]|``)*+`", rf"{single}|\"(?:[^\"{inside}]|\"\"{escape})*+\""
    executed = r"/\*M?!(?:\d{5,6})?" if is_mariadb else r"/\*!(?:\d{5,6})?"
    return re.compile(
        rf"(?P<space>[\s\0]+|\#[^\n]*|--(?=[\s\x00-\x1f]|\Z)[^\n]*|(?!{executed})/\*.*?\*/)"
        rf"|(?P<executed>{executed})|(?P<end>\*/)|(?P<name>{name})|(?P<text>{literal})"
        # Everything beyond ASCII is a letter. What is not text in the log's character set comes as surrogates.
        r"|(?P<word>[0-9A-Za-z_$\x80-\U0010ffff]+)"
        r"|(?P<mark>[^'\"`\x00-\x20])",
        re.DOTALL,
    )


class Words:
    """The words of a statement, taken one after the other.

    Args:
        schema: the database in use, which names without one are in.
        folds_case: the server keeps the names of tables in lower case, however they are written.
    """

    def __init__(self, text: str, words: list[Word], schema: str, *, folds_case: bool) -> None:
        self._words = words
        self._text = text
        self._folds_case = folds_case
        self._at = 0
        self.schema = schema.lower() if folds_case else schema

    @property
    def left(self) -> bool:
        return self._at < len(self._words)

    @property
    def kind(self) -> str:
        """The first words, for messages: nothing that could be a value."""
        count = 2 if self._words and self._words[0].plain in _TAKES_AN_OBJECT else 1
        return " ".join(word.plain for word in self._words[:count] if word.plain.isidentifier())

    def peek(self, ahead: int = 0) -> str:
        """The word to come, in capitals; '' at the end, and for what is quoted."""
        return self._words[self._at + ahead].plain if self._at + ahead < len(self._words) else ""

    def take(self, *expected: str) -> bool:
        """Pass over words if they come next."""
        if all(self.peek(number) == word for number, word in enumerate(expected)):
            self._at += len(expected)
            return True
        return False

    def take_any(self, *choices: str) -> str:
        """Pass over a word if it is one of these; '' if it is not."""
        found = self.peek()
        return found if found in choices and self.take(found) else ""

    def expect(self, *expected: str) -> None:
        """Pass over words; raises NotUnderstood if others come."""
        if not self.take(*expected):
            raise NotUnderstood

    def end(self) -> None:
        """Raises NotUnderstood if there is more."""
        if self.left:
            raise NotUnderstood

    def name(self) -> str:
        """A name; raises NotUnderstood if none comes."""
        if not self.left:
            raise NotUnderstood
        word = self._words[self._at]
        if word.is_text or (word.plain and not _is_name(word.plain)):
            raise NotUnderstood
        self._at += 1
        return word.text

    def value(self) -> str:
        """One word of any kind; raises NotUnderstood if none comes."""
        if not self.left:
            raise NotUnderstood
        self._at += 1
        return self._words[self._at - 1].text

    def table(self) -> TableName:
        """A table's name; raises NotUnderstood if none comes."""
        if self.take("."):  # the old way to say that it is in the database in use
            return self._called(self.schema, self.name())
        first = self.name()
        return self._called(first, self.name()) if self.take(".") else self._called(self.schema, first)

    def database(self) -> TableName:
        """All tables of a database."""
        return self._called(self.name(), "")

    def _called(self, schema: str, name: str) -> TableName:
        return TableName(schema.lower(), name.lower()) if self._folds_case else TableName(schema, name)

    def action(self) -> Words:
        """Everything up to the next comma that is in no parentheses, for which this goes on behind it."""
        depth, begin = 0, self._at
        while self.left and (depth or self.peek() != ","):
            depth += (self.peek() == "(") - (self.peek() == ")")
            self._at += 1
        found = Words(self._text, self._words[begin : self._at], self.schema, folds_case=self._folds_case)
        self.take(",")
        return found

    def rest(self) -> list[Word]:
        """Everything that is left."""
        found, self._at = self._words[self._at :], len(self._words)
        return found

    def text_of(self, words: list[Word]) -> str:
        """Some words as they stand in the statement, without the comments between them."""
        found = ""
        for number, word in enumerate(words):
            found += " " * (number > 0 and words[number - 1].end < word.start) + self._text[word.start : word.end]
        return found

    def tables(self) -> frozenset[TableName]:
        """Every name in it that could be one of a table."""
        found = set()
        for number, word in enumerate(self._words):
            if word.is_text or (word.plain and not _is_name(word.plain)):
                continue
            before = self._words[number - 1].plain if number else ""
            follows = self._words[number + 1].plain if number + 1 < len(self._words) else ""
            is_qualified = before == "." and number > 1
            if is_qualified:
                found.add(self._called(self._words[number - 2].text, word.text))
            # What stands behind a lone point is in the database in use.
            is_alone = is_qualified and self._words[number - 2].end < self._words[number - 1].start
            if follows != "." and (is_alone or not is_qualified):
                found.add(self._called(self.schema, word.text))
        return frozenset(found)


def _is_name(plain: str) -> bool:
    return plain[0].isalnum() or plain[0] in "_$" or plain[0] >= "\x80"
