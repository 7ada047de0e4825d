"""Statements of PostgreSQL at random: every action of ALTER TABLE, types, partitions, names, and rows between them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from integration.schema_changes.postgres_tables import DEFAULTS, TYPES, look, value
from integration.schema_changes.servers import Session
from integration.schema_changes.shapes import NothingToChoose, RandomRows, Table

T = TypeVar("T")


class PostgresWork:
    """A number of statements, each made for what is there when its turn comes."""

    def __init__(self, seed: int, count: int, version: tuple[int, int]) -> None:
        self._rng = random.Random(seed)
        self._left = count
        self._version = version
        self._names = 0
        self._rows = RandomRows(self._rng, lambda column: value(self._rng, column), ignore=", ON CONFLICT DO NOTHING")
        self._tables: list[Table] = []
        self._has_changed = True  # the shape of a table, since the last look
        self._kinds: list[Callable[[], str]] = [
            self._alter, self._alter, self._alter, self._alter, self._in_one_transaction, self._names_swap, self._table_names,
            self._partition, self._partition, self._of_type, self._truncate, self._create, self._create, self._drop, self._key,
            self._rewrite, self._two_steps, self._two_steps,
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
                if self._rng.random() < 0.5:
                    return self._change_of_rows()
                return self._rng.choice(self._kinds)()
            except NothingToChoose:
                continue
        return "SELECT 1"

    def _change_of_rows(self) -> str:
        statement = self._rows.any(self._one(self._tables))
        self._has_changed = False
        return statement

    # --- choices ----------------------------------------------------------------------------------------------------

    def _one(self, candidates: Sequence[T]) -> T:
        if not candidates:
            raise NothingToChoose
        return self._rng.choice(candidates)

    def _root(self) -> Table:
        return self._one([table for table in self._tables if table.parent is None])

    def _ordinary(self) -> Table:
        return self._one([table for table in self._tables if table.parent is None and table.kind == "r"])

    def _new(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    # --- ALTER TABLE ------------------------------------------------------------------------------------------------

    def _alter(self) -> str:
        """One to four actions in one statement."""
        table = self._root() if self._rng.random() < 0.9 else self._one(self._tables)
        count = self._rng.choice([1, 1, 1, 2, 2, 3, 4])
        return f"ALTER TABLE {table.name} " + ", ".join(self._action(table) for _ in range(count))

    def _action(self, table: Table) -> str:
        kinds = [
            self._add,
            self._add,
            self._add,
            self._retype,
            self._retype,
            self._of_column,
            self._of_column,
            self._of_table,
        ]
        return self._rng.choice(kinds)(table)

    def _add(self, table: Table) -> str:
        name = self._new("c")
        how = self._rng.random()
        if how < 0.15:
            always = self._rng.choice(["ALWAYS", "BY DEFAULT"])
            return f"ADD COLUMN {name} {self._rng.choice(['int', 'bigint', 'smallint'])} GENERATED {always} AS IDENTITY"
        if how < 0.3:
            number = self._one([column for column in table.columns if column.is_integer and not column.is_generated])
            stored = self._rng.choice(["STORED", "VIRTUAL"] if self._version >= (18, 0) else ["STORED"])
            return f"ADD COLUMN {name} int GENERATED ALWAYS AS ({number.name} % 1000) {stored}"
        if how < 0.35:
            return f"ADD COLUMN {name} {self._rng.choice(['serial', 'bigserial'])}"
        kind = self._rng.choice(TYPES)
        defaults = DEFAULTS.get(kind)
        default = f" DEFAULT {self._rng.choice(defaults)}" if defaults and self._rng.random() < 0.6 else ""
        not_null = " NOT NULL" if default and self._rng.random() < 0.4 else ""
        return f"ADD COLUMN {self._rng.choice(['', 'IF NOT EXISTS '])}{name} {kind}{default}{not_null}"

    def _retype(self, table: Table) -> str:
        column = self._one([column for column in table.columns if not column.is_generated])
        name = column.name
        if column.is_integer:
            forms = [
                "int",
                "bigint",
                "smallint",
                "numeric(20,2)",
                "text",
                f"int USING {name} % 50 + 100",
                f"bigint USING -{name}",
            ]
        elif column.is_text:
            forms = ["text", "varchar(40)", "varchar(3) USING left({0}, 3)", "text USING upper({0})", "char(6) USING left({0}, 6)",
                     "varchar(40) COLLATE \"C\"", "text[] USING ARRAY[{0}]", "bytea USING convert_to({0}, 'UTF8')",
                     "mood USING 'ok'::mood", "int USING length({0})"]  # fmt: skip
        elif column.labels:
            forms = ["text", "text USING 'm:' || {0}", "mood USING 'sad'::mood"]
        else:
            forms = ["numeric(14,2)", "numeric(9,1)", "timestamptz", "timestamp", "date", "text", "json", "jsonb", "double precision",
                     f"{column.type} USING NULL"]  # fmt: skip
        return f"ALTER COLUMN {name} TYPE {self._rng.choice(forms).format(name)}"

    def _of_column(self, table: Table) -> str:
        column = self._one(list(table.columns))
        forms = [
            "DROP COLUMN {0}", "DROP COLUMN IF EXISTS {0} CASCADE", "ALTER {0} DROP DEFAULT", "ALTER {0} DROP NOT NULL",
            "ALTER {0} SET NOT NULL", "ALTER {0} SET STATISTICS 50", "ALTER {0} SET STORAGE EXTERNAL", "ALTER {0} SET STORAGE PLAIN",
            "ALTER {0} SET (n_distinct = 5)", "ALTER {0} RESET (n_distinct)", "ALTER {0} DROP IDENTITY IF EXISTS",
            "ALTER {0} ADD GENERATED BY DEFAULT AS IDENTITY", "ALTER {0} SET GENERATED ALWAYS", "ALTER {0} RESTART WITH 500",
            "ALTER {0} DROP EXPRESSION IF EXISTS", "ALTER {0} SET COMPRESSION pglz", "ADD CHECK ({0} IS NOT NULL) NOT VALID",
            "ADD UNIQUE ({0})", "ADD CONSTRAINT {1} CHECK ({0}::text <> 'nope')",
        ]  # fmt: skip
        if column.is_integer:
            forms += ["ALTER {0} SET DEFAULT 3", "ALTER {0} SET DEFAULT (random() * 100)::int"]
            forms += ["ALTER {0} SET EXPRESSION AS (5)"] if self._version >= (17, 0) else []
        if column.is_text:
            forms += ["ALTER {0} SET DEFAULT 'later'"] * 2
        return self._rng.choice(forms).format(column.name, self._new("check_"))

    def _of_table(self, table: Table) -> str:
        forms = [
            "REPLICA IDENTITY FULL", "REPLICA IDENTITY FULL", "REPLICA IDENTITY DEFAULT", "SET (fillfactor = 50)", "RESET (fillfactor)",
            "SET WITHOUT CLUSTER", "SET UNLOGGED", "SET LOGGED", "SET LOGGED", "DISABLE TRIGGER ALL", "ENABLE TRIGGER ALL",
            "SET (autovacuum_enabled = off)", "OWNER TO CURRENT_USER", "DISABLE ROW LEVEL SECURITY", "SET ACCESS METHOD heap",
        ]  # fmt: skip
        return self._rng.choice(forms)

    # --- several statements -----------------------------------------------------------------------------------------

    def _in_one_transaction(self) -> str:
        """Rows and shapes in turn, in one transaction, which may be rolled back."""
        table = self._root()
        parts = []
        for _ in range(self._rng.randint(2, 5)):
            parts.append(
                self._rows.any(table) if self._rng.random() < 0.5 else f"ALTER TABLE {table.name} {self._action(table)}"
            )
        return "BEGIN; " + "; ".join(parts) + ("; COMMIT" if self._rng.random() < 0.85 else "; ROLLBACK")

    def _two_steps(self) -> str:
        """A column whose default comes, goes or changes after it."""
        table, name = self._root(), self._new("c")
        kind = self._rng.choice(list(DEFAULTS))
        default = self._rng.choice(DEFAULTS[kind])
        forms = [
            f"ADD COLUMN {name} {kind}; ALTER TABLE {table.name} ALTER {name} SET DEFAULT {default}",
            f"ADD COLUMN {name} {kind} DEFAULT {default}; ALTER TABLE {table.name} ALTER {name} DROP DEFAULT",
            f"ADD COLUMN {name} {kind} DEFAULT {default}; ALTER TABLE {table.name} DROP COLUMN {name}",
            f"ADD COLUMN {name} {kind}; UPDATE {table.name} SET {name} = {default}; ALTER TABLE {table.name} ALTER {name} SET NOT NULL",
            f"ADD COLUMN {name} {kind}; ALTER TABLE {table.name} DROP COLUMN {name}; "
            f"ALTER TABLE {table.name} ADD COLUMN {name} {kind} DEFAULT {default}",
        ]
        return f"ALTER TABLE {table.name} {self._rng.choice(forms)}"

    def _names_swap(self) -> str:
        """Names of columns: one, two that are swapped, or a chain of three."""
        table = self._root()
        names = [column.name for column in table.columns]
        self._rng.shuffle(names)
        rename = f"ALTER TABLE {table.name} RENAME COLUMN "
        if len(names) < 2 or self._rng.random() < 0.4:
            return f"{rename}{names[0]} TO {self._new('r')}"
        first, second, passing = names[0], names[1], self._new("r")
        if self._rng.random() < 0.6:
            return f"BEGIN; {rename}{first} TO {passing}; {rename}{second} TO {first}; {rename}{passing} TO {second}; COMMIT"
        return f"BEGIN; {rename}{second} TO {passing}; {rename}{first} TO {second}; COMMIT"

    def _table_names(self) -> str:
        one, passing = self._root(), self._new("t")
        other = self._one([table for table in self._tables if table.parent is None and table.name != one.name])
        a, b = one.name, other.name
        forms = [
            f"ALTER TABLE {a} RENAME TO {passing}",
            f"BEGIN; ALTER TABLE {a} RENAME TO {passing}; ALTER TABLE {b} RENAME TO {a}; ALTER TABLE {passing} RENAME TO {b}; COMMIT",
            f"BEGIN; DROP TABLE {a}; ALTER TABLE {b} RENAME TO {a}; COMMIT",
            f"BEGIN; CREATE TABLE {passing} (LIKE {a} INCLUDING ALL); INSERT INTO {passing} SELECT * FROM {a}; "
            f"DROP TABLE {a}; ALTER TABLE {passing} RENAME TO {a}; COMMIT",
        ]
        return str(self._rng.choice(forms))

    def _create(self) -> str:
        name, model = self._new("t"), self._root()
        forms = [
            f"CREATE TABLE {name} (LIKE {model.name} INCLUDING ALL)",
            f"CREATE TABLE {name} AS SELECT * FROM {model.name}; ALTER TABLE {name} REPLICA IDENTITY FULL",
            f"CREATE TABLE {name} (id int PRIMARY KEY, v text DEFAULT 'v'); INSERT INTO {name} VALUES (1), (2)",
            f"CREATE TABLE {name} (id int PRIMARY KEY, v text) PARTITION BY HASH (id); "
            f"CREATE TABLE {name}_0 PARTITION OF {name} FOR VALUES WITH (MODULUS 2, REMAINDER 0); "
            f"CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES WITH (MODULUS 2, REMAINDER 1); "
            f"INSERT INTO {name} SELECT i, 'h' FROM generate_series(1, 6) i",
        ]
        return str(self._rng.choice(forms))

    def _drop(self) -> str:
        """A table goes, and one of that name comes again."""
        if len(self._tables) < 6:
            raise NothingToChoose
        name = self._root().name
        again = f"; CREATE TABLE {name} (id int PRIMARY KEY, z text); INSERT INTO {name} VALUES (1, 'again')"
        return f"DROP TABLE {name} CASCADE" + (again if self._rng.random() < 0.7 else "")

    def _truncate(self) -> str:
        names = self._rng.sample([table.name for table in self._tables], 1 if self._rng.random() < 0.8 else 2)
        return "TRUNCATE " + ", ".join(names) + self._rng.choice(["", "", " RESTART IDENTITY", " CASCADE"])

    def _key(self) -> str:
        table = self._root()
        free = self._one([column.name for column in table.columns])
        constraint = f"{table.name}_pkey"
        # PostgreSQL asks the partition that holds a row what identifies it.
        full = [f"ALTER TABLE {name} REPLICA IDENTITY FULL" for name in (table.name, *table.partitions)]
        forms = [
            f"ALTER TABLE {table.name} DROP CONSTRAINT {constraint}, ADD PRIMARY KEY ({', '.join({free, *table.key})})",
            f"ALTER TABLE {table.name} DROP CONSTRAINT IF EXISTS {constraint}; {'; '.join(full)}",
            f"ALTER TABLE {table.name} ADD PRIMARY KEY ({free})",
            f"CREATE UNIQUE INDEX {table.name}_x ON {table.name} ({free}); ALTER TABLE {table.name} ALTER {free} SET NOT NULL; "
            f"ALTER TABLE {table.name} REPLICA IDENTITY USING INDEX {table.name}_x",
        ]
        return str(self._rng.choice(forms))

    def _rewrite(self) -> str:
        table = self._ordinary()
        forms = ["VACUUM FULL {0}", "CLUSTER {0} USING {0}_pkey", "REINDEX TABLE {0}", "ANALYZE {0}", "VACUUM {0}", "COMMENT ON TABLE {0} IS 'c'",
                 "CREATE INDEX ON {0} (({0}::text))", "LOCK TABLE {0}", "GRANT SELECT ON {0} TO PUBLIC"]  # fmt: skip
        return self._rng.choice(forms).format(table.name)

    # --- types and partitions ---------------------------------------------------------------------------------------

    def _of_type(self) -> str:
        label, name = self._new("l"), self._new("c")
        labels = self._one([column.labels for table in self._tables for column in table.columns if column.labels])
        forms = [
            f"ALTER TYPE mood ADD VALUE '{label}'", f"ALTER TYPE mood ADD VALUE '{label}' BEFORE '{labels[0]}'",
            f"ALTER TYPE mood RENAME VALUE '{labels[0]}' TO '{label}'", f"ALTER TYPE mood RENAME VALUE '{labels[-1]}' TO '{label}'",
            f"ALTER TYPE mood RENAME VALUE '{labels[0]}' TO '{label}'; ALTER TYPE mood RENAME VALUE '{labels[-1]}' TO '{labels[0]}'",
            f"ALTER TYPE point2 ADD ATTRIBUTE {name} int", f"ALTER TYPE point2 DROP ATTRIBUTE IF EXISTS {name}",
            f"ALTER TYPE point2 RENAME ATTRIBUTE y TO {name}; ALTER TYPE point2 RENAME ATTRIBUTE {name} TO y",
            "ALTER TYPE point2 ALTER ATTRIBUTE x TYPE bigint", "ALTER DOMAIN positive SET DEFAULT 8", "ALTER DOMAIN positive DROP DEFAULT",
            "ALTER DOMAIN token DROP DEFAULT", "ALTER DOMAIN token SET DEFAULT gen_random_uuid()", "ALTER DOMAIN positive DROP NOT NULL",
            f"ALTER TYPE mood RENAME TO mood_{label}; ALTER TYPE mood_{label} RENAME TO mood",
        ]  # fmt: skip
        return str(self._rng.choice(forms))

    def _partition(self) -> str:
        root = self._one([table for table in self._tables if table.kind == "p"])
        leaf, name = self._one(list(root.partitions) or [None]), self._new("p")
        low = 60 + 10 * self._names
        apart = f"CREATE TABLE {name} (LIKE {root.name} INCLUDING ALL)"
        columns = [column for column in root.columns if not column.is_written]
        row = ", ".join(str(low + 1) if column.name in root.key else value(self._rng, column) for column in columns)
        filled = f"{apart}; INSERT INTO {name} ({', '.join(column.name for column in columns)}) VALUES ({row})"
        attach = f"ALTER TABLE {root.name} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({low + 10})"
        forms = [
            f"TRUNCATE {leaf}", f"DROP TABLE {leaf}", f"ALTER TABLE {root.name} DETACH PARTITION {leaf}",
            f"ALTER TABLE {root.name} DETACH PARTITION {leaf} CONCURRENTLY",
            f"{filled}; {attach}", f"CREATE TABLE {name} PARTITION OF {root.name} FOR VALUES FROM ({low}) TO ({low + 10})",
            f"CREATE TABLE {name} PARTITION OF {root.name} DEFAULT",
            f"BEGIN; ALTER TABLE {root.name} DETACH PARTITION {leaf}; DELETE FROM {leaf} WHERE {root.columns[0].name}::text LIKE '%1'; "
            f"ALTER TABLE {root.name} ATTACH PARTITION {leaf} FOR VALUES FROM ({low}) TO ({low + 10}); COMMIT",
            f"{apart} PARTITION BY RANGE ({root.columns[0].name}); {attach}",
            f"{attach.replace(name, self._ordinary().name)}", f"ALTER TABLE {leaf} REPLICA IDENTITY FULL",
            f"VACUUM FULL {leaf}", f"ALTER TABLE {leaf} RENAME TO {name}",
        ]  # fmt: skip
        return str(self._rng.choice(forms))
