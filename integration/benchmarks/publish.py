"""What a copy for readers costs: bytes that are written for it, and how long nothing is applied, against a whole copy."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Stage
from cdc.engine.views import PublicationView
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.target import InOneFile

ROWS = 2_000_000
UPDATES = 3_000  # before each copy
EVERY = 0.5  # seconds


def copies(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """A table of which few rows change, as most tables are."""
    rows = int(ROWS * scale)
    console.print(f"Copies for readers of {rows:,} rows, {UPDATES:,} of which change each time:", highlight=False)
    dsn = server.create_database("publish")
    server.execute("CREATE TABLE t (id int PRIMARY KEY, n int, v text)", "publish")
    server.execute(f"INSERT INTO t SELECT n, 0, md5(n::text) FROM generate_series(1, {rows}) n", "publish")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "read.duckdb"
        options = Options(selection=Selection(("public.t",)), publish=file, publish_every=EVERY)
        pipeline = open_pipeline(dsn, f"duckdb:{folder}/target.duckdb", options)
        thread = threading.Thread(target=pipeline.run)
        thread.start()
        _newer_than(pipeline, None)
        found, whole = [], []
        for number in range(pairs + 2):
            before = pipeline.view().publication
            where = f"id BETWEEN {number * UPDATES % rows} AND {(number + 1) * UPDATES % rows}"
            server.execute(f"UPDATE t SET n = n + 1 WHERE {where}", "publish")
            found.append(_newer_than(pipeline, before))
            whole.append(_whole(pipeline, Path(folder) / "whole.duckdb"))
        pipeline.stop()
        thread.join()
    found = found[2:]  # the first two are whole ones, since there was no file before the last one
    pause, written = median(view.pause for view in found), median(view.written for view in found)
    console.print(
        f"  {found[-1].size / 1e6:.0f} MB; written {written / 1e6:.1f} MB, {written / found[-1].size:.1%} of a whole "
        f"copy; nothing applied for {pause:.3f} s against {median(whole):.3f} s: {pause / median(whole):.2f}\n",
        highlight=False,
    )
    server.execute("SELECT pg_drop_replication_slot('cdc_cdc')")
    server.execute("DROP DATABASE publish WITH (FORCE)")


def _newer_than(pipeline: Pipeline, before: PublicationView | None) -> PublicationView:
    """The next copy that has more than the one before."""
    while True:
        view = pipeline.view().publication
        if view is not None and view.at is not None and (before is None or view.position != before.position):
            return view
        time.sleep(0.02)


def _whole(pipeline: Pipeline, to: Path) -> float:
    """Seconds for which a backup keeps the applier waiting."""

    def copy(stage: Stage) -> float:
        began = time.monotonic()
        assert isinstance(stage.target, InOneFile)
        stage.target.back_up(to, stage.alive)
        return time.monotonic() - began

    return pipeline.errand(copy, patience=30.0)
