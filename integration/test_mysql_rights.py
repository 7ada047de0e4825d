"""Rights: what docs/operating.md lists is enough for everything, and whatever is missing is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cdc.connectors import source_module
from cdc.errors import SourceUnfit, TablesHeld, UsageError
from cdc.model.schema import TableName
from cdc.model.selection import Selection
from cdc.model.standing import State
from cdc.runs import open_pipeline
from cdc.sources.findings import Finding, Severity
from cdc.sources.mysql.state import SourceState, standings
from integration.conftest import MySqlDatabase, Replica, make_replica
from integration.test_mysql_cli import cdc
from integration.test_mysql_hazards import run_beside, stop, wait_for


@dataclass
class User:
    """Somebody without any rights yet."""

    database: MySqlDatabase
    name: str

    @property
    def account(self) -> str:
        return f"{self.name}@'127.0.0.1'"

    @property
    def dsn(self) -> str:
        return self.database.server.dsn(self.database.name, self.name, "pw")

    def grant(self, *rights: str) -> None:
        self.database.execute(*[f"GRANT {right} TO {self.account}" for right in rights])

    def findings(self, selection: Selection | None = None) -> list[Finding]:
        return source_module(self.dsn).check_source(self.dsn, selection or Selection())

    def fatal(self, selection: Selection | None = None) -> list[str]:
        return [f"{f.subject}: {f.message}" for f in self.findings(selection) if f.severity is Severity.FATAL]

    def run(self, replica: Replica) -> None:
        open_pipeline(self.dsn, replica.target, replica.options).run()
        replica.assert_equal()


@pytest.fixture
def user(my: MySqlDatabase) -> Iterator[User]:
    made = User(my, f"u_{my.name}")
    my.execute(f"CREATE USER {made.account} IDENTIFIED BY 'pw'")
    yield made
    my.execute(f"DROP USER {made.account}")


def documented(database: MySqlDatabase) -> tuple[str, ...]:
    """The list of docs/operating.md for this server."""
    text = (Path(__file__).parent.parent / "docs/operating.md").read_text()
    name = "MariaDB" if database.flavor == "mariadb" else "MySQL"
    lines = text.partition(f"<!-- rights: {name} -->")[2].partition("<!-- end -->")[0].splitlines()
    grants = [line.strip().removeprefix("GRANT ").partition(" TO ")[0] for line in lines if "GRANT" in line]
    assert grants
    return tuple(grant.replace("shop.*", f"`{database.name}`.*") for grant in grants)


def test_the_documented_rights(user: User, tmp_path: Path) -> None:
    """M22, C-10: exactly what is documented lets check say nothing, and everything be done: the copy, also of a table
    without transactions, what follows, tables that come, a resync, a verification."""
    my = user.database
    user.grant(*documented(my))
    my.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "INSERT INTO t VALUES (1, 1)",
        "CREATE TABLE m (id int PRIMARY KEY) ENGINE=MyISAM",
        "INSERT INTO m VALUES (1)",
    )
    assert [finding for finding in user.findings() if finding.subject.startswith("user")] == []
    assert user.fatal() == []
    replica = make_replica(my, tmp_path)
    user.run(replica)
    my.execute(
        "INSERT INTO t VALUES (2, 2)",
        "CREATE TABLE later (id int PRIMARY KEY, v text)",
        "INSERT INTO later VALUES (1, 'x')",
        "ALTER TABLE t MODIFY v bigint",
        "INSERT INTO m VALUES (2)",
    )
    user.run(replica)
    for command in (["resync", user.dsn, replica.target, "--tables", "*.*"], ["verify", user.dsn, replica.target]):
        done = cdc(*command, "--name", my.name)
        assert done.returncode == 0, done.stdout + done.stderr
    replica.assert_equal()


def test_each_missing_right_is_named(user: User, tmp_path: Path) -> None:
    """M22: without any one of the documented rights check says which, and the run does not begin where it is needed."""
    my = user.database
    my.execute(
        "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)", "CREATE TABLE m (id int) ENGINE=MyISAM"
    )
    singles = [
        f"{right.strip()} ON {where}"
        for grant in documented(my)
        for rights, _, where in [grant.partition(" ON ")]
        for right in rights.split(",")
    ]
    assert len(singles) >= 4
    for missing in singles:
        my.execute(f"DROP USER {user.account}", f"CREATE USER {user.account} IDENTIFIED BY 'pw'")
        user.grant(*[single for single in singles if single != missing])
        right, _, where = missing.partition(" ON ")
        fixes = [finding.fix or "" for finding in user.findings()]
        assert any(f"GRANT {right}" in fix and (where in fix or right == "SELECT") for fix in fixes), (missing, fixes)
        if right == "XA_RECOVER_ADMIN":
            continue
        with pytest.raises((UsageError, SourceUnfit)):
            user.run(make_replica(my, tmp_path))


@pytest.mark.parametrize("way", ["all", "pattern", "role", "everything"])
def test_rights_by_other_ways(user: User, way: str) -> None:
    """M22: by patterns of databases, by roles, by everything: no finding where there is nothing to find; and a role that is
    not active, or lacks something, does not count."""
    my = user.database
    my.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    on_all = [grant for grant in documented(my) if grant.endswith("*.*")]
    in_database = [grant for grant in documented(my) if not grant.endswith("*.*")]
    if way == "everything":
        user.grant("ALL ON *.*")
    elif way in ("all", "pattern"):
        escaped = my.name.replace("_", r"\_")
        user.grant(*on_all, "ALL ON " + (f"`{my.name}`.*" if way == "all" else f"`{escaped[:-1]}%`.*"))
    else:
        role = f"r_{my.name}"
        my.execute(f"CREATE ROLE {role}", *[f"GRANT {grant} TO {role}" for grant in on_all])
        user.grant(role, *in_database)
        assert user.fatal() != []
        default = f"SET DEFAULT ROLE {role} {'FOR' if my.flavor == 'mariadb' else 'TO'} {user.account}"
        my.execute(default)
    assert [finding for finding in user.findings() if finding.subject.startswith("user")] == []
    if way == "role":
        my.execute(f"REVOKE REPLICATION SLAVE ON *.* FROM {role}")
        assert any("read the log" in text for text in user.fatal())
        my.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("metadata", ["usual", "FULL"])
def test_rights_on_columns(user: User, tmp_path: Path, metadata: str) -> None:
    """M20: a table of which only some columns may be read is never followed: the log has the others as well."""
    my = user.database
    usual = "MINIMAL" if my.flavor == "mysql" else "NO_LOG"
    my.execute(f"SET GLOBAL binlog_row_metadata = '{usual if metadata == 'usual' else metadata}'")
    try:
        user.grant(*[grant for grant in documented(my) if "SELECT" not in grant], f"LOCK TABLES ON `{my.name}`.*")
        my.execute(
            "CREATE TABLE t (id int PRIMARY KEY, salary bigint, z bigint)",
            "INSERT INTO t VALUES (1, 1000, 5)",
            "CREATE TABLE hidden (id int PRIMARY KEY, salary bigint INVISIBLE)",
            "CREATE TABLE open (id int PRIMARY KEY)",
            "INSERT INTO open VALUES (1)",
        )
        user.grant(
            f"SELECT (id, z) ON `{my.name}`.t", f"SELECT (id) ON `{my.name}`.hidden", f"SELECT ON `{my.name}`.open"
        )
        refused = [text for text in user.fatal() if "may not read all of its columns" in text]
        assert {text.partition(":")[0] for text in refused} == {f"{my.name}.t", f"{my.name}.hidden"}
        with pytest.raises((UsageError, SourceUnfit), match="may not read all of its columns"):
            user.run(make_replica(my, tmp_path))
        user.grant(f"SELECT (salary) ON `{my.name}`.t", f"INSERT ON `{my.name}`.hidden")
        assert any(text.startswith(f"{my.name}.hidden") for text in user.fatal())
        user.grant(f"SELECT ON `{my.name}`.t", f"SELECT ON `{my.name}`.hidden")
        assert user.fatal() == []
        replica = make_replica(my, tmp_path)
        user.run(replica)
        my.execute("UPDATE t SET z = 6", "INSERT INTO hidden (id, salary) VALUES (1, 2)")
        user.run(replica)
    finally:
        my.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


def test_a_right_that_comes_later(user: User, tmp_path: Path) -> None:
    """M21: a table that the user may not read is not seen, which check says; once it is granted it is copied by itself. A
    name that means nothing which can be read is refused at the start."""
    my = user.database
    user.grant(*[grant for grant in documented(my) if "SELECT" not in grant], f"LOCK TABLES ON `{my.name}`.*")
    my.execute(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE later (id int PRIMARY KEY)",
        "INSERT INTO later VALUES (1)",
    )
    user.grant(f"SELECT ON `{my.name}`.t")
    assert user.fatal() == []
    assert any("single tables" in finding.message for finding in user.findings())
    assert any("later" in text for text in user.fatal(Selection(("later",), default_schema=my.name)))
    with pytest.raises(UsageError, match="later"):
        user.run(make_replica(my, tmp_path, "t", "later"))
    replica = make_replica(my, tmp_path)
    open_pipeline(user.dsn, replica.target, replica.options).run()
    assert replica.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = current_schema()") == [("t",)]
    my.execute("INSERT INTO later VALUES (2)")
    user.grant(f"SELECT (id) ON `{my.name}`.later")
    open_pipeline(user.dsn, replica.target, replica.options).run()
    user.grant(f"SELECT ON `{my.name}`.later")
    user.run(replica)
    assert replica.query("SELECT id FROM later ORDER BY id") == [(1,), (2,)]


def test_rights_that_come_and_go(user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M21: while the log is followed, a table whose right is taken away gets no more rows, all others do; granted again, it
    is copied again, by itself."""
    monkeypatch.setattr("cdc.sources.mysql.source._LOOK_EVERY", 0.1)
    my = user.database
    user.grant(*[grant for grant in documented(my) if "SELECT" not in grant], f"LOCK TABLES ON `{my.name}`.*")
    for table in ("open", "closed"):
        my.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, secret int)", f"INSERT INTO {table} VALUES (1, 1)")
        user.grant(f"SELECT ON `{my.name}`.{table}")
    replica = make_replica(my, tmp_path)
    user.run(replica)

    revoke = f"REVOKE SELECT ON `{my.name}`.closed FROM {user.account}"
    running = run_beside(Replica(Beside(my.server, my.name, user.dsn), replica.path, replica.options))
    my.execute(revoke)
    wait_for(lambda: TableName(my.name, "closed") in running[0].held)
    my.execute("UPDATE closed SET secret = 2", "UPDATE open SET secret = 2")
    wait_for(lambda: running[0].view().rows_applied > 0)
    stop(running)
    assert replica.query("SELECT secret FROM closed") == [(1,)]
    assert replica.query("SELECT secret FROM open") == [(2,)]
    user.grant(f"SELECT (id) ON `{my.name}`.closed")
    my.execute("UPDATE closed SET secret = 3", "UPDATE open SET secret = 3")
    with pytest.raises(TablesHeld, match="may not read all of its columns"):
        open_pipeline(user.dsn, replica.target, replica.options).run()
    assert replica.query("SELECT secret FROM open") == [(3,)]
    assert replica.query("SELECT secret FROM closed") == [(1,)]
    running = run_beside(Replica(Beside(my.server, my.name, user.dsn), replica.path, replica.options))
    user.grant(f"SELECT ON `{my.name}`.closed")
    wait_for(lambda: running[0].view().tables[TableName(my.name, "closed")].state is State.FOLLOWING)
    stop(running)
    user.run(replica)


@dataclass
class Beside(MySqlDatabase):
    """A database as somebody else sees it."""

    other: str

    @property
    def dsn(self) -> str:
        return self.other


def test_engines_whose_changes_never_come(my: MySqlDatabase, tmp_path: Path) -> None:
    """M18: a table that shows rows of others, or keeps none, is said to be one that cannot be followed."""
    my.execute(
        "CREATE TABLE a (id int PRIMARY KEY) ENGINE=MyISAM",
        "CREATE TABLE together (id int PRIMARY KEY) ENGINE=MERGE UNION=(a)",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
    )
    findings = source_module(my.dsn).check_source(my.dsn, Selection())
    (found,) = [finding for finding in findings if finding.subject == f"{my.name}.together"]
    assert found.severity is Severity.WARNING
    assert "mrg_myisam" in found.message
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    checkpoint = str(replica.query("SELECT state FROM _cdc.checkpoint")[0][0])
    assert standings(SourceState.load(checkpoint))[TableName(my.name, "together")].state is State.LEFT_OUT
    my.execute("INSERT INTO a VALUES (1)", "UPDATE t SET id = 5")
    replica.catch_up()
    assert replica.query("SELECT id FROM t") == [(5,)]
    assert replica.query("SELECT id FROM a") == [(1,)]
