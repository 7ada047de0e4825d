"""What operators do by mistake, in the middle of work at random: it is refused with the words that help, nothing else
changes by it, status says how things are, and once it has been undone all goes on exactly."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from cdc.errors import CdcError
from integration.conftest import Replica, make_replica
from integration.looks import status_now
from integration.processes import cdc
from integration.stateful import OUTCOMES, Disturbed

MISTAKES = (
    "wrong_file wrong_name target_removed target_removed_under_it target_replaced target_replaced_under_it old_backup "
    "wrong_condition wrong_teardown"
).split()
# Each with what it is refused with: it cannot be read, or a side cannot decide it.
CONDITIONS = [
    ("id = = 1", "--where is not a single condition in SQL"),
    ("", "--where is not a single condition in SQL"),
    ("id = 1; DROP TABLE t", "--where is not a single condition in SQL"),
    ("id = 1) OR (1 = 1", "--where is not a single condition in SQL"),
    ("id IN (DELETE FROM t RETURNING id)", "--where is not a single condition in SQL"),
    ("nothing = 1", "cannot decide the condition"),
]
_LONG_AGO = 86400.0  # seconds, of a backlog that is no matter here


class Mistaken(Disturbed):
    """The same, and people who get something wrong."""

    outcomes = (*OUTCOMES, *MISTAKES)

    @precondition(lambda self: self.calm >= 4)
    @rule(what=st.sampled_from(MISTAKES), variant=st.integers(0, 5))
    def err(self, what: str, variant: int) -> None:
        if self.in_transaction:  # a first copy would wait for it
            self.end_transaction("COMMIT")
        assert self.other is not None
        source, other = self.source_has(), self.other_has()
        getattr(self, what)(variant)
        self.has_all_of(source)
        assert self.other_has() == other
        report = self.status()
        assert (report["running"], report["problems"]) == (True, []), report
        self.disturbed(what)

    # --- what nobody may touch --------------------------------------------------------------------------------------

    @cached_property
    def other(self) -> Replica:
        """Another pipeline of the same database, which does not run."""
        other = make_replica(self.database, Path(self.folder.name), "t", name=f"{self.name}_o")
        other.catch_up()
        return other

    def other_has(self) -> tuple[Any, ...]:
        """What is in its target, and what status says of it."""
        with duckdb.connect(str(self.other.path), read_only=True) as target:
            schema = "public" if self.is_postgres else self.database.name
            held = [
                target.execute(f'FROM "{self.other.path.stem}".{table}').fetchall()
                for table in ("_cdc.checkpoint", "_cdc.tables", "_cdc.copying", f'"{schema}".t')
            ]
        report = status_now(self.database.dsn, self.other.target, f"{self.name}_o", _LONG_AGO)
        problems = [
            problem for problem in report["problems"] if not problem.startswith("Nobody runs it")
        ]  # as it is meant
        return *held, problems, report["tables"]

    def source_has(self) -> list[Any]:
        """Tables, with the rows that nobody changes meanwhile, and what pipelines have made."""
        if self.is_postgres:
            queries = [
                "SELECT slot_name::text, plugin::text FROM pg_replication_slots WHERE database = current_database() "
                "AND NOT temporary ORDER BY 1",
                "SELECT pubname::text, tablename::text FROM pg_publication_tables ORDER BY 1, 2",
            ]
        else:
            queries = ["SELECT table_name FROM information_schema.tables WHERE table_schema = database() ORDER BY 1"]
        queries += ["SELECT id FROM t WHERE id < 900 ORDER BY 1", "SELECT a FROM c ORDER BY 1"]
        return [self.database.execute(query) for query in queries]

    def has_all_of(self, source: list[Any]) -> None:
        """The source is as it was, but for tables that had just come, which are published when they are found."""
        now = self.source_has()
        if self.is_postgres:
            came = [(of, table) for of, table in now[1] if (of, table) not in source[1] and table.startswith("extra")]
            now[1] = [published for published in now[1] if published not in came]
        assert now == source

    # --- what follows -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.replica.options.name

    @property
    def ours(self) -> tuple[str, ...]:
        return self.database.dsn, self.replica.target, "--name", self.name

    def status(self) -> dict[str, Any]:
        return status_now(self.database.dsn, self.replica.target, self.name, _LONG_AGO)

    def refused(self, code: int, words: str, *arguments: str) -> None:
        done = cdc(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert words in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr

    def ends_with_3(self, words: str) -> None:
        """The process, by itself."""
        assert self.process is not None
        assert self.process.wait(60) == 3, self.said()
        self.log.close()
        assert words in self.said()

    def is_red(self) -> None:
        """Or no answer at all, about a file that is another pipeline's."""
        try:
            report = self.status()
        except CdcError:
            return
        assert not report["healthy"], report

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.stop(signal.SIGTERM)
        yield
        self.start()

    @contextmanager
    def away(self) -> Iterator[None]:
        """The target lies elsewhere meanwhile; what has come into its place goes."""
        elsewhere = self._files(self.replica.path.with_name("elsewhere.duckdb"))
        files = self._files(self.replica.path)
        for file, kept in zip(files, elsewhere, strict=True):
            if file.exists():
                file.rename(kept)
        yield
        for file, kept in zip(files, elsewhere, strict=True):
            file.unlink(missing_ok=True)
            if kept.exists():
                kept.rename(file)

    def _files(self, path: Path) -> list[Path]:
        return [path, path.with_name(f"{path.name}.wal")]

    # --- mistakes ---------------------------------------------------------------------------------------------------

    def wrong_file(self, variant: int) -> None:
        """The target of another pipeline, under the name of this one."""
        command: list[tuple[str, ...]] = [("run", "--until-caught-up"), ("verify",), ("resync", "--tables", "*")]
        word, *options = command[variant % 3]
        ends = (self.database.dsn, self.other.target, "--name", self.name)
        self.refused(2, f"belongs to the pipeline '{self.name}_o'", word, *ends, *options)

    def wrong_name(self, variant: int) -> None:
        """A name that no pipeline has, or the one of another, for this target."""
        ends = (self.database.dsn, self.replica.target, "--name", ("no_such", f"{self.name}_o")[variant % 2])
        if variant < 2:
            self.refused(1, "is open in another process", "run", *ends, "--until-caught-up")
            self.refused(2, f"--name {self.name}", "resync", *ends, "--tables", "*")
            return
        with self.stopped():
            self.refused(2, f"belongs to the pipeline '{self.name}'", "run", *ends, "--until-caught-up")
            self.refused(2, f"--name {self.name}", "status", *ends)

    def target_removed(self, variant: int) -> None:
        """While nobody runs: PostgreSQL's slot says that there was one, MySQL has nothing that would. There it is copied
        again, exactly."""
        with self.stopped():
            if variant % 2 and not self.is_postgres:
                for file in self._files(self.replica.path):
                    file.unlink(missing_ok=True)
                self.is_red()
                return
            with self.away():
                self.is_red()
                if self.is_postgres:
                    self.refused(3, "but the target knows nothing of it", "run", *self.ours, "--until-caught-up")
                    self.is_red()

    def target_removed_under_it(self, variant: int) -> None:
        with self.away():
            self.ends_with_3("while it was being written")
            self.is_red()
        self.start()

    def target_replaced(self, variant: int) -> None:
        with self.stopped(), self.away():
            shutil.copy(self.other.path, self.replica.path)
            self.refused(2, f"belongs to the pipeline '{self.name}_o'", "run", *self.ours, "--until-caught-up")
            self.is_red()

    def target_replaced_under_it(self, variant: int) -> None:
        with self.away():
            shutil.copy(self.other.path, self.replica.path)
            self.ends_with_3("while it was being written")
            self.is_red()
        self.start()

    def old_backup(self, variant: int) -> None:
        """Where PostgreSQL has let go of what it lacks, that is said, and there is no gap. MySQL has the log: it goes on."""
        with self.stopped():
            backup = Path(shutil.copy(self.replica.path, self.replica.path.with_name("backup.duckdb")))
            before = self.checkpoint().position.order
        self.run(f"INSERT INTO t (id) VALUES ({next(self.numbers) + 1000})")
        self.settle()
        with self.stopped():
            if not self.is_postgres:
                backup.rename(self.replica.path)
                return
            assert self.confirmed() > before
            with self.away():
                backup.rename(self.replica.path)
                assert self.status()["problems"][0].startswith("A run would end: ")
                self.refused(3, "beyond the target's", "run", *self.ours, "--until-caught-up")
                self.is_red()

    def wrong_condition(self, variant: int) -> None:
        condition, words = CONDITIONS[variant]
        table = f"{'public' if self.is_postgres else self.database.name}.t"
        self.refused(2, words, "repair", *self.ours, "--table", table, "--where", condition)
        word = ("verify", "resync")[variant % 2]
        self.refused(
            2, "No table that is followed matches 'nothing.such'", word, *self.ours, "--tables", "nothing.such"
        )

    def wrong_teardown(self, variant: int) -> None:
        """Of a target and a name, or a target and a database, that do not belong together; and of a pipeline that runs."""
        if variant % 3 == 0:
            ends = (self.database.dsn, self.other.target, "--name", self.name)
            self.refused(2, "Nothing was removed", "teardown", *ends, "--yes")
        elif variant % 3 == 1:
            self.refused(1, "is open in another process", "teardown", *self.ours, "--yes")
        else:
            elsewhere = self.server.dsn("postgres" if self.is_postgres else "mysql")
            with self.stopped():
                self.refused(2, "Nothing was removed", "teardown", elsewhere, self.replica.target, "--yes")
