"""The bytes of the servers' character sets to text, by the server's own tables (B-52, B-53)."""

from __future__ import annotations

from cdc.errors import DecodeError, Unavailable
from cdc.sources.mysql.connection import Connection, mapped_errors
from cdc.sources.mysql.transactions import Query

_SAME = {"utf16": "utf-16-be", "utf16le": "utf-16-le", "utf32": "utf-32-be", "ucs2": "utf-16-be"}
_AT_ONCE = 500  # values that one statement converts
_LONGEST_AT_ONCE = 1 << 20  # bytes of them


class ServerConverter:
    """A `values.Converter` that asks a server.

    Character sets of one byte are asked for once, all 256 bytes of them; values of others are converted by the server,
    some hundreds at a time, as its own conversion is what a copy gets.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tables: dict[str, list[str] | None] = {}
        self._charsets: dict[int, str] = {}  # by the number of a collation

    def text(self, charset: str, values: list[bytes]) -> list[str]:
        if charset in _SAME:
            return [value.decode(_SAME[charset], "surrogatepass") for value in values]
        if charset not in self._tables:
            self._tables[charset] = self._table(charset)
        table = self._tables[charset]
        if table is not None:
            return ["".join([table[byte] for byte in value]) for value in values]
        texts: list[str] = []
        batch: list[bytes] = []
        for value in values:
            if batch and (len(batch) == _AT_ONCE or sum(map(len, batch)) + len(value) > _LONGEST_AT_ONCE):
                texts += self._ask(charset, batch)
                batch = []
            batch.append(value)
        return texts + (self._ask(charset, batch) if batch else [])

    def statement(self, query: Query) -> str:
        """The text of a statement, which the log has in the character set that the session spoke."""
        if query.text.isascii():
            return query.text
        charset = self._charset_of(query.collation)
        if charset.startswith("utf8"):
            return query.text
        if not charset:
            raise DecodeError(
                f"The statement before byte {query.end} is written in a character set that the server does not name "
                f"(number {query.collation}).",
                hint="Only a new copy is certainly right: `cdc teardown SOURCE TARGET`, remove the "
                "target, start again.",
            )
        return self.text(charset, [query.text.encode("utf-8", "surrogateescape")])[0]

    def _charset_of(self, collation: int) -> str:
        if collation not in self._charsets:
            # MariaDB's `collations` has no numbers of those that serve several character sets (uca1400, M16).
            is_mariadb = self._connection.version.flavor == "mariadb"
            source = "collation_character_set_applicability" if is_mariadb and self._names_numbers() else "collations"
            found = self._connection.value(
                f"SELECT character_set_name FROM information_schema.{source} WHERE id = %s", collation
            )
            self._charsets[collation] = str(found or "")
        return self._charsets[collation]

    def _names_numbers(self) -> bool:
        """Whether MariaDB says of each character set which collations it has by their numbers: from 10.10 on."""
        return self._connection.version.number >= (10, 10, 1)

    def _table(self, charset: str) -> list[str] | None:
        longest = self._connection.value(
            "SELECT maxlen FROM information_schema.character_sets WHERE character_set_name = %s", charset
        )
        return self._ask(charset, [bytes([byte]) for byte in range(256)]) if longest == 1 else None

    def _ask(self, charset: str, values: list[bytes]) -> list[str]:
        if not charset.isalnum():  # the server's own names are words; another one was damaged on the way (E-16)
            raise Unavailable(f"The server named a character set that cannot exist: {charset!r}.")
        parts = [f"HEX(CONVERT(CONVERT(x'{value.hex()}' USING {charset}) USING utf8mb4))" for value in values]
        with mapped_errors(self._connection.dsn):
            (row,) = self._connection.query("SELECT " + ", ".join(parts))
            return [bytes.fromhex(text).decode() if text else "" for text, _ in zip(row, values, strict=True)]
