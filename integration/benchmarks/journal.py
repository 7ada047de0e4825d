"""What a journal costs while it is written, and how fast a target is built from it, on W1."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.benchmarks.drain import ROW, TEN_COLUMNS
from integration.benchmarks.measure import Took, run
from integration.benchmarks.slots import kept_slot, take_recvlogical

_NAME = "wj"


def write_and_replay(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """1,000,000 inserts of ten columns, 1,000 per transaction: into a journal, nowhere, and from there into DuckDB."""
    count = int(1_000_000 * scale)
    dsn = server.create_database(_NAME)
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", _NAME)
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        open_pipeline(dsn, f"journal:{at / 'base'}", Options(name=_NAME, until_caught_up=True)).run()
        idle = {what: _take(server, dsn, what, at) for what in ("nowhere", "journal", "replay")}
        idle_theirs = take_recvlogical(server, _NAME, f"cdc_{_NAME}")
        server.execute(
            f"DO $$ BEGIN FOR part IN 0..{count // 1000 - 1} LOOP INSERT INTO t SELECT {ROW} "
            "FROM generate_series(part * 1000 + 1, part * 1000 + 1000) i; COMMIT; END LOOP; END $$",
            _NAME,
        )
        took: dict[str, list[Took]] = {"nowhere": [], "journal": [], "replay": []}
        theirs = []
        for _ in range(pairs):
            theirs.append(take_recvlogical(server, _NAME, f"cdc_{_NAME}").beyond(idle_theirs))
            for what, times in took.items():
                times.append(_take(server, dsn, what, at).beyond(idle[what]))
        size = sum(path.stat().st_size for path in (at / "copy").iterdir() if path.is_file()) / 1e6
    cost = median(j.seconds / n.seconds for j, n in zip(took["journal"], took["nowhere"], strict=True)) - 1
    faster = median(t.seconds / r.seconds for t, r in zip(theirs, took["replay"], strict=True))
    for what, times in (("pg_recvlogical -f /dev/null", theirs), *took.items()):
        seconds = median(one.seconds for one in times)
        peak = max(one.peak_mb for one in times)
        console.print(
            f"{what:28} {seconds:6.2f} s {count / seconds:10,.0f} rows/s, peak {peak:.0f} MB", highlight=False
        )
    console.print(
        f"Journal, {count:,} rows, {size:.0f} MB: writing it costs {cost:.0%} of a drain that keeps nothing (at most: "
        f"15%); replaying it into DuckDB is {faster:.2f} times as fast as pg_recvlogical (to reach: 1.5)\n",
        highlight=False,
    )
    server.execute(f"SELECT pg_drop_replication_slot('cdc_{_NAME}')")


def _take(server: PrivatePostgres, dsn: str, what: str, at: Path) -> Took:
    copy, python = at / "copy", [sys.executable, "-m"]
    if what == "replay":  # of what was written last
        (at / "new.duckdb").unlink(missing_ok=True)
        source = copy if copy.exists() else at / "base"
        return run([*python, "cdc", "rebuild", f"journal:{source}", f"duckdb:{at / 'new.duckdb'}"])
    with kept_slot(server, _NAME, f"cdc_{_NAME}"):
        if what == "nowhere":
            return run([*python, "integration.benchmarks.nowhere", dsn, f"journal:{at / 'base'}", _NAME])
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(at / "base", copy)
        return run([*python, "cdc", "run", dsn, f"journal:{copy}", "--name", _NAME, "--until-caught-up"])
