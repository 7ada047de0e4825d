"""Statements of MySQL and MariaDB at random: every action of ALTER TABLE, partitions, names, prefixes, sessions, and rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from integration.schema_changes.mysql_tables import DEFAULTS, TYPES, look, value
from integration.schema_changes.servers import Session
from integration.schema_changes.shapes import NothingToChoose, RandomRows, Table

_SESSIONS = (
    "SET sql_mode = 'ANSI_QUOTES'", "SET sql_mode = 'NO_BACKSLASH_ESCAPES'", "SET sql_mode = ''", "SET sql_mode = DEFAULT",
    "SET NAMES latin1", "SET NAMES utf8mb4", "SET time_zone = '+05:00'", "SET SESSION binlog_row_image = 'MINIMAL'",
    "SET SESSION binlog_row_image = 'NOBLOB'", "SET SESSION binlog_row_image = 'FULL'", "SET default_storage_engine = InnoDB",
    "SET collation_connection = utf8mb4_bin", "SET explicit_defaults_for_timestamp = 1", "SET character_set_server = DEFAULT",
    "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'", "SET SESSION binlog_transaction_compression = ON",
)  # fmt: skip

T = TypeVar("T")


class MySqlWork:
    """A number of statements, each made for what is there when its turn comes."""

    def __init__(self, seed: int, count: int, kind: str) -> None:
        self._rng = random.Random(seed)
        self._left = count
        self._is_mariadb = kind == "mariadb"
        self._names = 0
        self._rows = RandomRows(self._rng, lambda column: value(self._rng, column), ignore="IGNORE ,")
        self._tables: list[Table] = []
        self._has_changed = True  # the shape of a table, since the last look
        self._kinds: list[Callable[[], str]] = [
            *[self._alter] * 6, *[self._partition] * 3, self._column_names, self._column_names, self._table_names, self._table_names,
            self._truncate, self._create, self._create, self._drop, self._key, self._key, self._harmless, self._exchange,
            self._written,
        ]  # fmt: skip

    def next(self, session: Session) -> str | None:
        """The next statement."""
        if self._left == 0:
            return None
        self._left -= 1
        if self._has_changed:
            self._tables = look(session)
        self._has_changed = True
        for _ in range(20):
            try:
                chance = self._rng.random()
                if chance < 0.45:
                    return self._change_of_rows()
                if chance < 0.5:
                    return self._rng.choice(_SESSIONS)
                return self._dressed(self._rng.choice(self._kinds)())
            except NothingToChoose:
                continue
        return "DO 1"

    def _change_of_rows(self) -> str:
        statement = self._rows.any(self._one(self._tables))
        self._has_changed = False
        return statement

    # --- choices ----------------------------------------------------------------------------------------------------

    def _one(self, candidates: Sequence[T]) -> T:
        if not candidates:
            raise NothingToChoose
        return self._rng.choice(candidates)

    def _table(self) -> Table:
        return self._one(self._tables)

    def _new(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def _dressed(self, statement: str) -> str:
        """The same statement, said in another way: prefixes, comments that are executed, names with their database."""
        verb, rest = statement.split(" ", 1)
        forms = [
            f"{verb}\n\t{rest}", f"/* ALTER TABLE x */ {statement}", f"-- é\n{statement}", f"/*!40101 {verb} */ {rest}",
            f"/*!50000 {statement} */", f"{verb.lower()} {rest}", f"{statement} /* , DROP COLUMN id */", f"{statement} -- é ' \"",
            f"# `\n{statement}",
        ]  # fmt: skip
        if self._is_mariadb:
            prefix = self._rng.choice(
                ["max_statement_time=60", "lock_wait_timeout=9, sort_buffer_size=100000", "sql_mode=''"]
            )
            forms += [f"SET STATEMENT {prefix} FOR {statement}"] * 3 + [f"/*M!100100 {verb} */ {rest}"]
        return self._rng.choice(forms) if self._rng.random() < 0.3 else statement

    # --- ALTER TABLE ------------------------------------------------------------------------------------------------

    def _alter(self) -> str:
        """One to four actions in one statement."""
        table = self._table()
        count = self._rng.choice([1, 1, 1, 2, 2, 3, 4])
        name = self._rng.choice(
            [table.name, table.name, f"`{table.name}`", f"{{schema}}.{table.name}", f"{{schema}} . `{table.name}`"]
        )
        actions = ", ".join(self._action(table) for _ in range(count))
        return f"ALTER {'IGNORE ' if self._is_mariadb and self._rng.random() < 0.05 else ''}TABLE {name} {actions}"

    def _action(self, table: Table) -> str:
        kinds = [
            self._add,
            self._add,
            self._add,
            self._modify,
            self._modify,
            self._of_column,
            self._of_column,
            self._of_table,
        ]
        return self._rng.choice(kinds)(table)

    def _definition(self) -> str:
        kind = self._rng.choice(TYPES)
        defaults = DEFAULTS.get(kind)
        default = f" DEFAULT {self._rng.choice(defaults)}" if defaults and self._rng.random() < 0.6 else ""
        not_null = (
            " NOT NULL"
            if (default or self._rng.random() < 0.2) and self._rng.random() < 0.4 and " NULL" not in kind
            else ""
        )
        return f"{kind}{not_null}{default}"

    def _place(self, table: Table) -> str:
        return self._rng.choice(
            ["", "", "", " FIRST", f" AFTER {self._rng.choice(table.columns).name}", " COMMENT 'a, b'"]
        )

    def _add(self, table: Table) -> str:
        name = self._rng.choice(
            [self._new("c"), self._new("c"), self._new("c"), "`period`", "`primary`", "`key`", "`first`", "`a, b`"]
        )
        how = self._rng.random()
        number = next((column.name for column in table.columns if column.is_integer), "1")
        if how < 0.2:
            return f"ADD COLUMN {name} BIGINT GENERATED ALWAYS AS ({number} % 50) {self._rng.choice(['STORED', 'VIRTUAL'])}"
        if how < 0.25:
            return f"ADD COLUMN {name} INT AS (length({table.columns[-1].name})) STORED{self._place(table)}"
        if how < 0.35:
            return f"ADD COLUMN ({name} {self._definition()}, {self._new('c')} {self._definition()})"
        if how < 0.4:
            return f"ADD COLUMN {name} INT AUTO_INCREMENT UNIQUE"
        if how < 0.45:
            return f"ADD {name} INT INVISIBLE DEFAULT 5"
        conditional = "IF NOT EXISTS " if self._is_mariadb and self._rng.random() < 0.2 else ""
        return f"ADD {self._rng.choice(['COLUMN ', ''])}{conditional}{name} {self._definition()}{self._place(table)}"

    def _modify(self, table: Table) -> str:
        column = self._rng.choice(table.columns)
        if column.is_integer:
            kinds = [
                "INT",
                "BIGINT",
                "BIGINT UNSIGNED",
                "SMALLINT",
                "DECIMAL(9,2)",
                "VARCHAR(20)",
                "INT NOT NULL",
                "INT DEFAULT 4",
                "TINYINT",
            ]
        elif column.labels:
            kinds = [
                "ENUM('x','y','z','new')",
                "ENUM('z','y','x')",
                "VARCHAR(20)",
                "INT",
                "SET('x','y','z')",
                "ENUM('x','y','renamed')",
            ]
        else:
            kinds = [
                *TYPES,
                "VARCHAR(60)",
                "VARCHAR(2)",
                "TEXT",
                "VARCHAR(20) CHARACTER SET latin1",
                "VARBINARY(30)",
                "LONGTEXT",
                "VARCHAR(300)",
            ]
        kind = self._rng.choice(kinds)
        if self._rng.random() < 0.3:
            return f"CHANGE {column.name} {self._new('r')} {kind}{self._place(table)}"
        return f"MODIFY {self._rng.choice(['', 'COLUMN '])}{column.name} {kind}{self._place(table)}"

    def _of_column(self, table: Table) -> str:
        name, other = self._rng.choice(table.columns).name, self._rng.choice(table.columns).name
        forms = [
            f"DROP COLUMN {name}", f"DROP {name}", f"ALTER {name} SET DEFAULT 3", f"ALTER COLUMN {name} SET DEFAULT 'd'", f"ALTER {name} DROP DEFAULT",
            f"RENAME COLUMN {name} TO {self._new('r')}", f"RENAME COLUMN {name} TO {other}, RENAME COLUMN {other} TO {name}",
            f"RENAME COLUMN {name} TO {other}, DROP COLUMN {other}", f"RENAME COLUMN {name} TO {other}, RENAME COLUMN {other} TO {self._new('r')}",
            f"ADD INDEX {self._new('i')} ({name})", f"ADD UNIQUE ({name})", f"DROP COLUMN {name}, ADD COLUMN {name} INT DEFAULT 8",
            f"ALTER {name} SET INVISIBLE", f"ALTER {name} SET DEFAULT (1 + 1)", f"CHANGE {name} {other} INT, CHANGE {other} {name} INT",
        ]  # fmt: skip
        if self._is_mariadb:
            forms += [f"DROP COLUMN IF EXISTS {name}", f"RENAME COLUMN IF EXISTS {name} TO {self._new('r')}"]
        return self._rng.choice(forms)

    def _of_table(self, table: Table) -> str:
        names = [column.name for column in table.columns]
        forms = [
            "ENGINE=InnoDB", "ENGINE = MyISAM", "ROW_FORMAT=DYNAMIC", "FORCE", "COMMENT='a, MODIFY b'", "AUTO_INCREMENT = 500",
            "CONVERT TO CHARACTER SET utf8mb4", "CONVERT TO CHARACTER SET latin1", "DEFAULT CHARACTER SET latin1", "CHARSET = utf8mb4",
            "DEFAULT CHARACTER SET binary", "CONVERT TO CHARACTER SET binary", f"ORDER BY {', '.join(names[:2])}", "STATS_PERSISTENT=1",
            "ALGORITHM=COPY", "LOCK=SHARED", "DISABLE KEYS", "ENABLE KEYS", f"ADD CONSTRAINT {self._new('x')} CHECK ({names[0]} IS NOT NULL)",
            f"RENAME TO {self._new('t')}", "COLLATE utf8mb4_bin",
        ]  # fmt: skip
        if self._is_mariadb:
            forms += [
                "ADD SYSTEM VERSIONING",
                "DROP SYSTEM VERSIONING",
                "PAGE_CHECKSUM=1",
                "NOWAIT ADD INDEX (" + names[0] + ")",
            ]
        return self._rng.choice(forms)

    # --- other statements -------------------------------------------------------------------------------------------

    def _column_names(self) -> str:
        table = self._table()
        names = [column.name for column in table.columns]
        self._rng.shuffle(names)
        if len(names) < 3:
            raise NothingToChoose
        a, b, c = names[:3]
        pairs = [[(a, b), (b, a)], [(a, b), (b, self._new("r"))], [(a, b), (b, c), (c, a)], [(a, self._new("r"))]]
        return f"ALTER TABLE {table.name} " + ", ".join(
            f"RENAME COLUMN {old} TO {new}" for old, new in self._rng.choice(pairs)
        )

    def _table_names(self) -> str:
        a, passing = self._table().name, self._new("t")
        b = self._one([table.name for table in self._tables if table.name != a])
        forms = [
            f"RENAME TABLE {a} TO {passing}", f"RENAME TABLE {a} TO {passing}, {b} TO {a}, {passing} TO {b}",
            f"RENAME TABLE {a} TO {passing}, {b} TO {a}", f"ALTER TABLE {a} RENAME {passing}", f"ALTER TABLE {a} RENAME AS {passing}, ADD {self._new('c')} INT",
            f"DROP TABLE IF EXISTS {a}_gone, {a}" if len(self._tables) > 6 else f"RENAME TABLE {a} TO {passing}",
            f"RENAME TABLE {{schema}}.{a} TO {{schema}}.{passing}",
        ]  # fmt: skip
        return str(self._rng.choice(forms))

    def _create(self) -> str:
        name, model = self._new("t"), self._table().name
        forms = [
            f"CREATE TABLE {name} LIKE {model}", f"CREATE TABLE {name} SELECT * FROM {model}", f"CREATE TABLE {name} (PRIMARY KEY (id)) AS SELECT * FROM {model}",
            f"CREATE TABLE IF NOT EXISTS {model} (id INT PRIMARY KEY)", f"CREATE TABLE {name} (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(9) DEFAULT 'v')",
            f"CREATE TABLE {name} (id INT, v INT, PRIMARY KEY (id)) PARTITION BY LIST (id) (PARTITION p0 VALUES IN (1, 2), PARTITION p1 VALUES IN (3, 4))",
            f"CREATE TABLE _{name}_new (id INT PRIMARY KEY, v INT)", f"CREATE TEMPORARY TABLE {name} (id INT)", f"CREATE TEMPORARY TABLE {model} LIKE {model}", f"DROP TEMPORARY TABLE IF EXISTS {model}",
        ]  # fmt: skip
        if self._is_mariadb:
            forms += [
                f"CREATE OR REPLACE TABLE {model} (id INT PRIMARY KEY, z INT)",
                f"CREATE OR REPLACE TABLE {name} SELECT * FROM {model}",
            ]
        return str(self._rng.choice(forms))

    def _drop(self) -> str:
        if len(self._tables) < 6:
            raise NothingToChoose
        return f"DROP TABLE {self._table().name}"

    def _truncate(self) -> str:
        return self._rng.choice(["TRUNCATE {0}", "TRUNCATE TABLE {0}", "TRUNCATE TABLE {{schema}}.{0}"]).format(
            self._table().name
        )

    def _key(self) -> str:
        table = self._table()
        name, column = table.name, self._rng.choice(table.columns).name
        forms = [
            "ALTER TABLE {0} DROP PRIMARY KEY", "ALTER TABLE {0} DROP INDEX `PRIMARY`", "DROP INDEX `PRIMARY` ON {0}", "ALTER TABLE {0} ADD PRIMARY KEY ({1})",
            "ALTER TABLE {0} DROP PRIMARY KEY, ADD PRIMARY KEY (id, {1})", "ALTER TABLE {0} DROP INDEX one", "DROP INDEX one ON {0}",
            "CREATE UNIQUE INDEX one ON {0} ({1})", "ALTER TABLE {0} RENAME INDEX one TO two", "CREATE INDEX two ON {0} ({1})", "ALTER TABLE {0} DROP KEY {1}",
            "ALTER TABLE {0} MODIFY {1} INT NOT NULL, ADD UNIQUE KEY one ({1})", "ALTER TABLE {0} DROP CONSTRAINT one",
        ]  # fmt: skip
        return self._rng.choice(forms).format(name, column)

    def _harmless(self) -> str:
        forms = ["ANALYZE TABLE {0}", "OPTIMIZE TABLE {0}", "CHECK TABLE {0}", "REPAIR TABLE {0}", "FLUSH TABLES", "CREATE OR REPLACE VIEW w AS SELECT * FROM {0}",
                 "LOCK TABLES {0} WRITE", "UNLOCK TABLES", "CREATE TRIGGER g{1} BEFORE INSERT ON {0} FOR EACH ROW SET @x = 1", "SET @x = 'ALTER TABLE {0}'"]  # fmt: skip
        return self._rng.choice(forms).format(self._table().name, self._new(""))

    def _written(self) -> str:
        """Rows by statements of other kinds, also logged as text where a session can choose that."""
        table = self._table()
        columns = table.plain
        if not columns:
            raise NothingToChoose
        names = ", ".join(column.name for column in columns)
        values = ", ".join(value(self._rng, column) for column in columns)
        forms = [f"REPLACE INTO {table.name} ({names}) VALUES ({values})",
                 f"INSERT INTO {table.name} ({names}) VALUES ({values}) ON DUPLICATE KEY UPDATE {columns[-1].name} = {value(self._rng, columns[-1])}"]  # fmt: skip
        if self._is_mariadb:
            forms += [f"SET STATEMENT binlog_format='STATEMENT' FOR {self._rows.any(table)}"]
        return self._rng.choice(forms)

    # --- partitions -------------------------------------------------------------------------------------------------

    def _partition(self) -> str:
        table = self._one([table for table in self._tables if table.partitions])
        parts, name = list(table.partitions), self._new("p")
        some = ", ".join(self._rng.sample(parts, self._rng.randint(1, min(2, len(parts)))))
        low = 60 + 10 * self._names
        forms = [
            "ADD PARTITION (PARTITION {name} VALUES LESS THAN ({low}))", "ADD PARTITION PARTITIONS 2", "DROP PARTITION {some}", "TRUNCATE PARTITION {some}",
            "TRUNCATE PARTITION ALL", "COALESCE PARTITION 1", "REBUILD PARTITION {some}", "ANALYZE PARTITION {some}", "OPTIMIZE PARTITION {some}",
            "CHECK PARTITION {some}", "REPAIR PARTITION {some}", "REMOVE PARTITIONING", "PARTITION BY KEY (id) PARTITIONS 2",
            "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (15), PARTITION p1 VALUES LESS THAN MAXVALUE)",
            "REORGANIZE PARTITION {first} INTO (PARTITION {name} VALUES LESS THAN (5), PARTITION {first} VALUES LESS THAN (10))",
            "REORGANIZE PARTITION p0, p1 INTO (PARTITION p1 VALUES LESS THAN (20))", "REORGANIZE PARTITION",
        ]  # fmt: skip
        if self._is_mariadb:
            forms += [
                "CONVERT PARTITION {first} TO TABLE {name}",
                "CONVERT TABLE q TO PARTITION {name} VALUES LESS THAN ({low})",
            ]
        return f"ALTER TABLE {table.name} " + self._rng.choice(forms).format(
            name=name, low=low, some=some, first=parts[0]
        )

    def _exchange(self) -> str:
        table = self._one([table for table in self._tables if table.partitions])
        other = self._one(
            [each.name for each in self._tables if not each.partitions and len(each.columns) == len(table.columns)]
        )
        # Never WITHOUT VALIDATION: a row in the wrong partition is there or not, as a query's plan has it.
        rows = self._rng.choice(["", " WITH VALIDATION"])
        return (
            f"ALTER TABLE {table.name} EXCHANGE PARTITION {self._rng.choice(table.partitions)} WITH TABLE {other}{rows}"
        )
