"""One port (`cdc run --listen`): what it says of a pipeline is what is so, and it says it whatever else hangs."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdc.demo.server import PrivatePostgres
from cdc.errors import EXIT_DONE, EXIT_OPERATOR, EXIT_USAGE
from integration.conftest import Database, MySqlDatabase, Replica
from integration.line import through
from integration.looks import status_now
from integration.processes import Process, cdc, start
from integration.proxy import FaultProxy
from integration.watched import Port, promtool, wait_for


@pytest.fixture
def port() -> Port:
    return Port()


@contextmanager
def running(*arguments: str, code: int = EXIT_DONE, **environment: str) -> Iterator[Process]:
    """A process that is ended in the end, and ends as it should."""
    process = start(*arguments, **environment)
    try:
        yield process
        process.terminate()
        said = process.communicate(timeout=60)[1]
        assert process.returncode == code, said
        assert "Traceback" not in said, said[-6000:]
    finally:
        process.kill()


def test_a_pipeline_from_its_copy_on(database: Database, port: Port, tmp_path: Path) -> None:
    """Not ready before the first copy is done; then all numbers are those of what was applied."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'a' FROM generate_series(1, 500) n"
    )
    database.execute("CREATE TABLE u (id int PRIMARY KEY); ANALYZE")
    ends, name = (database.dsn, f"duckdb:{tmp_path / 'x.duckdb'}"), database.name
    of = {"pipeline": name, "target": ends[1]}
    with running("run", *ends, "--name", name, *port.option, CDC_FAULT="handoff.after_take:2=delay:3") as process:
        assert port.until(503, "copied") == "The tables are being copied for the first time.\n"
        assert port.value("cdc_pipeline_phase", phase="copying", **of) == 1
        assert port.value("cdc_copy_estimated_rows", table="public.t", **of) == 500
        assert port.until(200) == "It is ready.\n"
        database.execute(
            "INSERT INTO t SELECT n, 'b' FROM generate_series(501, 600) n; UPDATE t SET v = 'c' WHERE id < 8"
        )
        database.execute("DELETE FROM t WHERE id > 590; INSERT INTO u VALUES (1); TRUNCATE u")
        wait_for(lambda: bool(port.value("cdc_table_truncates_total", table="public.u")), "applied")
        assert {
            (labels["table"], labels["operation"]): value for labels, value in port.metrics()["cdc_table_rows_total"]
        } == {
            ("public.t", "inserted"): 100,
            ("public.t", "updated"): 7,
            ("public.t", "deleted"): 10,
            ("public.u", "inserted"): 1,
            ("public.u", "updated"): 0,
            ("public.u", "deleted"): 0,
        }
        assert port.value("cdc_rows_applied_total", **of) == 118
        assert port.value("cdc_rows_copied_total", **of) == port.value("cdc_copy_rows", table="public.t", **of) == 500
        assert port.value("cdc_transactions_applied_total", **of) == 2
        wait_for(lambda: port.value("cdc_tables", state="following", **of) == 2, "both are followed")
        assert port.value("cdc_lag_bytes", **of) == 0
        segments = port.value("cdc_segment_apply_seconds_count", **of)
        assert segments is not None
        assert segments >= 4  # copies of two tables, and two transactions
        assert port.value("cdc_segment_bytes_count", **of) == segments
        assert 0 < (port.value("cdc_segment_apply_seconds_sum", **of) or 0) < 60
        wait_for(lambda: port.value("cdc_source_up", **of) == 1, "the source was asked")
        assert port.value("cdc_slot_wal_status", status="reserved", **of) == 1
        assert (port.value("process_resident_memory_bytes") or 0) > 1 << 20
        assert promtool("check", "metrics", said=port.get("/metrics").text) == ""

        wait_for(lambda: is_as_status_says(port.report(name), *ends), "the command says the same")
        report = port.report(name)
        assert report["tables"]["public.t"]["rows_per_second"] > 0
        assert report["samples"]

        carefully_answered(port)
        refused = cdc("run", database.dsn, str(tmp_path / "y.duckdb"), "--name", "other", *port.option)
        assert refused.returncode == EXIT_USAGE
        assert f"Nothing can listen at 127.0.0.1:{port.number}" in refused.stderr
        assert "ss -ltnp" in refused.stderr
        assert not (tmp_path / "y.duckdb").exists()

        events = http.client.HTTPConnection("127.0.0.1", port.number, timeout=20)
        events.request("GET", "/events")
        answer = events.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for _ in range(2):
            seen = json.loads(answer.readline().removeprefix(b"data: "))
            assert answer.readline() == b"\n"
            assert seen.keys() == json.loads(port.get("/status.json").text).keys()
        process.terminate()
        answer.read()  # to its end, which comes with that of the server
        events.close()


def is_as_status_says(report: dict[str, Any], source: str, target: str) -> bool:
    """Whether `cdc status`, which reads what the pipeline has written a moment ago, has all that a report has."""
    asked = status_now(source, target, report["name"])
    assert report.keys() >= asked.keys()
    assert report["slot"].keys() == asked["slot"].keys()
    same = ("running", "phase", "position", "failure", "problems", "health", "verification", "lag_bytes")
    return all(report[key] == asked[key] for key in same)


def carefully_answered(port: Port) -> None:
    """What a browser gets; and a page of another site, whose name leads to this machine, reads nothing."""
    for path in ("/livez", "/readyz", "/metrics", "/status.json", "/nothing"):
        headers = port.get(path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Server"] is None
    for host, code in {"localhost": 200, "[::1]:9": 200, "evil.example": 400, "127.0.0.1.evil.example": 400}.items():
        assert port.get("/status.json", Host=host).code == code, host


def test_a_held_table(replica: Replica, database: Database, port: Port) -> None:
    """It makes a pipeline unready though all others go on, and says which one and what to do."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE u (id int PRIMARY KEY)")
    replica.catch_up()
    with duckdb.connect(str(replica.path)) as connection:
        connection.execute("ALTER TABLE public.t RENAME COLUMN v TO w")
    database.execute("INSERT INTO t VALUES (1, 2); INSERT INTO u VALUES (1)")
    with running("run", database.dsn, replica.target, "--name", database.name, *port.option):
        assert "cdc resync SOURCE TARGET --tables public.t" in port.until(503, "held")
        assert port.value("cdc_table_state", table="public.t", state="held") == 1
        assert port.value("cdc_tables", state="held") == port.value("cdc_tables", state="following") == 1
        assert port.value("cdc_pipeline_ready") == 0


def test_a_source_that_goes_away_or_says_nothing(database: Database, port: Port, tmp_path: Path) -> None:
    """O13, O29: not ready, with the reason, and ready again; a line through which nothing passes holds up no answer."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    with FaultProxy(database.server.port) as proxy:
        dsn = through(proxy, database) + "&connect_timeout=2"
        ends = (dsn, f"duckdb:{tmp_path / 'x.duckdb'}", "--name", database.name)
        with running("run", *ends, *port.option, "--max-lag", "1h"):
            port.until(200)
            proxy.refuse()
            proxy.cut()
            port.until(503, "The source cannot be asked")
            wait_for(lambda: (port.value("cdc_lag_seconds") or 0) > 1, "the time goes on")
            assert port.value("cdc_source_up") == 0
            wait_for(lambda: port.value("cdc_pipeline_phase", phase="waiting") == 1, "it waits between two tries")
            assert port.value("cdc_pipeline_failing") == 1
            (error, *_) = port.report(database.name)["errors"]
            assert error["remedy"]
            proxy.listen()
            port.until(200)
            assert (port.value("cdc_pipeline_tries_total") or 0) > 1
            assert port.value("cdc_lag_seconds") == 0
            with proxy.hole():
                port.until(503, "The source cannot be asked")  # which looks at /livez as well
                assert port.get("/metrics").code == 200
            port.until(200)


def test_a_target_that_is_gone_and_a_slot_in_danger(port: Port, tmp_path: Path) -> None:
    """O9, O41: the process stays alive, and says what only a person can help, and how long the slot will last."""
    settings = {"max_slot_wal_keep_size": "16MB", "max_wal_size": "1GB"}
    with PrivatePostgres(18, settings=settings) as server:
        server.create_database("shop")
        database = Database(server, "shop")
        database.execute("CREATE TABLE t (id int PRIMARY KEY)")
        ends = (database.dsn, f"duckdb:{tmp_path / 'x.duckdb'}", "--name", "shop")
        with running("run", *ends, *port.option, "--on-operator-needed", "wait", code=EXIT_OPERATOR):
            port.until(200)
            (tmp_path / "x.duckdb").unlink()
            said = port.until(503, "while it was being written")
            assert said.startswith("The last run has failed: ")
            report = port.report("shop")
            assert report["remedy"]
            assert report["remedy"] in said
            assert (report["running"], report["phase"]) == (False, "stopped")
            assert port.value("cdc_pipeline_up") == 0
            assert "while it was being written" in report["errors"][0]["message"]
            wait_for(lambda: (port.value("cdc_slot_safe_bytes") or 0) > 0, "the slot is still looked at")
            for _ in range(3):
                database.execute("SELECT pg_logical_emit_message(false, '', 'x'); SELECT pg_switch_wal()")
            port.until(503, "max_slot_wal_keep_size")
            assert port.value("cdc_slot_wal_status", status="unreserved") == 1
            assert (port.value("cdc_slot_safe_bytes") or 0) <= 0
            assert port.value("cdc_slot_remaining_seconds") == 0


def test_a_full_disk(database: Database, port: Port, tmp_path: Path) -> None:
    """O14: as any run that ends with 3; without the wish to wait, it does end."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    ends = (database.dsn, f"duckdb:{tmp_path / 'x.duckdb'}", "--name", database.name, *port.option)
    assert cdc("run", *ends, "--until-caught-up").returncode == EXIT_DONE
    database.execute("INSERT INTO t VALUES (2)")
    full = {"CDC_FAULT": "target.before_insert=nospace"}
    assert cdc("run", *ends, **full).returncode == EXIT_OPERATOR
    with running("run", *ends, "--on-operator-needed", "wait", code=EXIT_OPERATOR, **full):
        port.until(503, "There is no space left for ")


def test_a_journal_and_its_feeds(database: Database, port: Port, tmp_path: Path) -> None:
    """O11, O12: a feed that fails and a writer that is tried again are seen, each by itself."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    fine, failing = f"duckdb:{tmp_path / 'a.duckdb'}", f"jsonl:{tmp_path / 'b.jsonl'}"
    (tmp_path / "b.jsonl").write_text("somebody else's\n")
    journal = f"journal:{tmp_path / 'j'}"
    with FaultProxy(database.server.port) as proxy:
        dsn = through(proxy, database) + "&connect_timeout=2"
        to = ("--journal", str(tmp_path / "j"), "--to", fine, "--to", failing, "--name", database.name)
        with running("run", dsn, *to, *port.option, "--max-lag", "3s"):
            said = port.until(503, f"{failing}: The last run has failed: ")
            wait_for(lambda: port.value("cdc_pipeline_ready", target=fine) == 1, "the other one is fed")
            assert port.value("cdc_pipeline_ready", target=journal) == 0, said
            assert port.value("cdc_pipeline_ready", target=failing) == 0
            (tmp_path / "b.jsonl").unlink()
            port.until(200)
            database.execute("INSERT INTO t VALUES (2)")
            for target in (journal, fine, failing):
                wait_for(
                    lambda of=target: (
                        port.value("cdc_table_rows_total", table="public.t", operation="inserted", target=of) == 1
                    ),
                    target,
                )
            assert port.value("cdc_lag_bytes", target=fine) == 0
            assert port.value("cdc_journal_behind_records", target=fine) is not None
            proxy.refuse()
            proxy.cut()
            port.until(503, "s behind")
            report = port.report(database.name)
            assert report["phase"] in ("waiting", "opening")
            assert report["failure"]
            assert report["feeds"][fine]["ready"]
            proxy.listen()
            port.until(200)


def test_a_log_of_mysql(my: MySqlDatabase, port: Port, tmp_path: Path) -> None:
    """What the server keeps of it is said in place of a slot."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with running("run", my.dsn, f"duckdb:{tmp_path / 'x.duckdb'}", "--name", my.name, *port.option):
        port.until(200)
        my.execute("UPDATE t SET id = 2")
        wait_for(lambda: port.value("cdc_table_rows_total", operation="updated") == 1, "applied")
        wait_for(lambda: (port.value("cdc_log_kept_bytes") or 0) > 0, "the source was asked")
        assert port.value("cdc_source_up") == 1
        assert "cdc_slot_retained_bytes" not in port.metrics()
        assert port.report(my.name)["origin"]["kind"] == my.flavor
