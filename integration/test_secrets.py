"""A password and values of rows that must not be said: not in output, log, error, status, state, nor left in a file."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import duckdb
import pytest

from cdc.demo.server import PrivatePostgres
from integration.conftest import Database, MySqlDatabase
from integration.processes import COMMAND, cdc

CANARY = "zq" + secrets.token_hex(6)  # in every value
PASSWORD = f"p@:/?#[]%&=+ '\"{CANARY}\\"


class Heard:
    """Runs commands and keeps all that they say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def run(self, *arguments: str, code: int | None = None, **environment: str) -> str:
        done = cdc("-v", *arguments, timeout=120, **environment)
        said = done.stdout + done.stderr
        self.said.append(said)
        assert code is None or done.returncode == code, said
        assert "Traceback" not in said
        return said

    def assert_nothing(self, folder: Path, target: Path | None) -> None:
        """Neither was said, nor lies in the status file or in the state tables, and no temporary file stays."""
        for file in folder.iterdir():
            if file.suffix == ".json":
                self.said.append(file.read_text())
        assert not [file for file in folder.iterdir() if file.name.endswith(".tmp")]
        if target is not None:
            with duckdb.connect(str(target), read_only=True) as connection:
                for (name,) in connection.execute(
                    "SELECT table_name FROM duckdb_tables() WHERE schema_name = '_cdc'"
                ).fetchall():
                    self.said.append(repr(connection.execute(f"SELECT * FROM _cdc.{name}").fetchall()))
        assert len(self.said) > 1
        for text in self.said:
            for form in (CANARY, PASSWORD, quote(PASSWORD, safe="")):
                assert form not in text, text


def killed(arguments: list[str], **environment: str) -> tuple[str, str]:
    """A pipeline that follows for a moment: its command line as others see it, and what it said until it was stopped."""
    process = subprocess.Popen(
        [*COMMAND, "-v", *arguments], stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    time.sleep(2.5)
    line = Path(f"/proc/{process.pid}/cmdline").read_text()
    process.send_signal(signal.SIGTERM)
    return line, process.communicate(timeout=60)[1]


def test_postgresql(tmp_path: Path) -> None:
    """E-03, E-04: by environment, by file and by DSN; wrong passwords, widened columns, drift, refused changes."""
    heard, path = Heard(), tmp_path / "x.duckdb"
    target = f"duckdb:{path}"
    with PrivatePostgres(18) as server:
        escaped = PASSWORD.replace("'", "''")
        server.execute(
            f"CREATE ROLE app LOGIN SUPERUSER; SET standard_conforming_strings = on; ALTER ROLE app PASSWORD '{escaped}'"
        )
        server.create_database("shop")
        database = Database(server, "shop")
        database.execute(
            f"""
            CREATE TABLE t (id text PRIMARY KEY, v text, n numeric(8,2), j json, b bytea, d date);
            INSERT INTO t VALUES ('{CANARY}', '{CANARY}', 1, '{{"{CANARY}": 1}}', '{CANARY}', '2026-01-01');
            CREATE TABLE r (id int PRIMARY KEY, v text); INSERT INTO r VALUES (1, '{CANARY}');
            """
        )
        dsn = f"postgresql://app@127.0.0.1:{server.port}/shop"
        with_password = dsn.replace("app@", f"app:{quote(PASSWORD, safe='')}@")
        passfile = tmp_path / "pass"
        passfile.write_text(f"*:*:*:app:{PASSWORD.replace(chr(92), chr(92) * 2).replace(':', chr(92) + ':')}\n")
        passfile.chmod(0o600)
        heard.run("check", dsn, code=0, PGPASSWORD=PASSWORD)
        heard.run("run", dsn, target, "--until-caught-up", code=0, PGPASSFILE=str(passfile))
        passfile.unlink()
        assert "PGPASSWORD" in heard.run("run", with_password, target, "--until-caught-up", code=0)
        for command in (["run", dsn, target], ["check", dsn], ["tail", dsn], ["status", dsn, target, "--json"]):
            assert "password authentication failed" in heard.run(*command, code=2, PGPASSWORD=PASSWORD + "x")
        heard.run("check", with_password.replace("/shop", "/nope"), code=2)
        for broken in (
            f"postgresql://app:{PASSWORD}@127.0.0.1/shop",
            f"postgresql://app:{CANARY}%zz@127.0.0.1/shop?x={CANARY}",
        ):
            heard.run("run", broken, target, code=2)
        line, said = killed(["run", dsn, target], PGPASSWORD=PASSWORD)
        heard.said += [line, said]
        database.execute(f"INSERT INTO t VALUES ('{CANARY}2', '{CANARY}', 'NaN', '1', '', 'infinity')")
        assert "kept as text" in heard.run("run", dsn, target, "--until-caught-up", code=0, PGPASSWORD=PASSWORD)
        heard.run("status", dsn, target, "--json", code=0, PGPASSWORD=PASSWORD)
        database.execute(
            f"ALTER TABLE r ALTER v TYPE varchar(3) USING left(v, 3); ALTER TABLE r ADD w text DEFAULT '{CANARY}'; UPDATE r SET id = 2"
        )
        to_the_end = ("run", dsn, target, "--until-caught-up")
        heard.run(*to_the_end, "--on-table-error", "stop", code=3, PGPASSWORD=PASSWORD)
        heard.run(*to_the_end, code=0, PGPASSWORD=PASSWORD)
        with duckdb.connect(str(path)) as connection:
            connection.execute("ALTER TABLE public.t DROP COLUMN d")
        database.execute(f"UPDATE t SET v = '{CANARY}3'")
        heard.run(*to_the_end, "--on-table-error", "stop", code=3, PGPASSWORD=PASSWORD)
        heard.run(*to_the_end, code=1, PGPASSWORD=PASSWORD)
        heard.run("teardown", dsn, target, "--yes", code=0, PGPASSWORD=PASSWORD)
        heard.assert_nothing(tmp_path, path)


def test_mysql_and_mariadb(my: MySqlDatabase, tmp_path: Path) -> None:
    """E-03, E-04, B-23: the same, with statements that fail and statements that were logged as text."""
    heard, path = Heard(), tmp_path / "x.duckdb"
    target = f"duckdb:{path}"
    escaped = PASSWORD.replace("\\", "\\\\").replace("'", "''")
    my.execute(
        f"CREATE USER app@'127.0.0.1' IDENTIFIED BY '{escaped}'",
        "GRANT ALL ON *.* TO app@'127.0.0.1'",
        "CREATE TABLE t (id varchar(40) PRIMARY KEY, v text, d date, b blob, j json)",
        f"INSERT INTO t VALUES ('{CANARY}', '{CANARY}', '2026-01-01', '{CANARY}', '{{\"{CANARY}\": 1}}')",
    )
    try:
        with_password = my.server.dsn(my.name, "app", PASSWORD)
        dsn = with_password.replace(f"app:{quote(PASSWORD, safe='')}@", "app@")
        heard.run("check", dsn, code=0, MYSQL_PWD=PASSWORD)
        heard.run("run", dsn, target, "--until-caught-up", code=0, MYSQL_PWD=PASSWORD)
        assert "MYSQL_PWD" in heard.run("run", with_password, target, "--until-caught-up", code=0)
        for command in (["run", dsn, target], ["check", dsn], ["tail", dsn], ["status", dsn, target, "--json"]):
            assert "denied" in heard.run(*command, code=2, MYSQL_PWD=PASSWORD + "x")
        for broken in (
            f"{my.flavor}://app:{PASSWORD}@127.0.0.1/shop",
            f"{my.flavor}://app@127.0.0.1/shop?password={CANARY}",
        ):
            heard.run("run", broken, target, code=2)
        line, said = killed(["run", dsn, target], MYSQL_PWD=PASSWORD)
        heard.said += [line, said]
        my.execute("SET sql_mode = ''", f"INSERT INTO t VALUES ('{CANARY}2', '{CANARY}', '0000-00-00', '', '1')")
        assert "kept as text" in heard.run("run", dsn, target, "--until-caught-up", code=0, MYSQL_PWD=PASSWORD)
        my.execute(
            f"ALTER TABLE t ADD w varchar(40) DEFAULT 'by default', COMMENT = '{CANARY}'",
            f"UPDATE t SET v = '{CANARY}4'",
        )
        heard.run("run", dsn, target, "--until-caught-up", code=0, MYSQL_PWD=PASSWORD)
        my.execute("SET binlog_format = 'STATEMENT'", f"UPDATE t SET v = '{CANARY}3' WHERE id = '{CANARY}'")
        heard.run("run", dsn, target, "--until-caught-up", code=0, MYSQL_PWD=PASSWORD)
        heard.run("status", dsn, target, "--json", code=0, MYSQL_PWD=PASSWORD)
        assert not [
            text for text in heard.said if "by default" in text
        ]  # the checkpoint knows it, as it knows the shape
        heard.assert_nothing(tmp_path, path)
    finally:
        my.execute("DROP USER app@'127.0.0.1'")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:{}@127.0.0.1:1/d",
        "mysql://u:{}@127.0.0.1:1/d",
        "mariadb://u:{}@127.0.0.1:1/d?ssl_mode=disabled",
        "postgresql://127.0.0.1:1/d?user=u&password={}",
    ],
)
def test_a_password_in_a_command_line_is_warned_of(dsn: str, tmp_path: Path) -> None:
    """E-03: `ps` shows arguments to everybody, which a program cannot take back; it says so, and how to do without."""
    heard = Heard()
    said = heard.run("check", dsn.format(CANARY))
    assert "visible" in said
    assert "PGPASSWORD" in said or "MYSQL_PWD" in said
    assert CANARY not in said
