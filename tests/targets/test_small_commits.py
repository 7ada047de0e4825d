"""Many small commits into DuckDB: what one takes, and what the file and the process hold, follows the data.

`CDC_COMMITS=100000` makes it the long form; 360,000 are an hour of 100 a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlglot import exp

from cdc.model.change import Op, Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes, Reset, Segment
from cdc.targets.duckdb.target import DuckDbTarget
from cdc.typed import fitting
from tests.model.batches import Row, batch, table

COMMITS = int(os.environ.get("CDC_COMMITS", "800"))
ROWS = 2000
SCHEMA = table(3, (0,))
DATES = TableSchema(
    TableName("s", "dates"),
    2,
    (
        Column("id", "int", LogicalType(Kind.INT32), 1, key=0),
        Column("day", "date", LogicalType(Kind.DATE), 2),
    ),
)
MEMORY = 128 << 20
CHECKPOINTS = 8  # that a run passes: DuckDB would make one in 64 MB of its log, which is 100,000 commits

Change = tuple[Op, Row | None, Row | None]


def row(key: int, number: int) -> Row:
    return (f"k{key}", f"{number:08d}" * 8, str(number))


def same_rows(number: int) -> list[Change]:
    """Ten rows, over and over."""
    return [(Op.UPDATE, None, row(number % 10, number))]


def all_over(number: int) -> list[Change]:
    """Rows all over the table."""
    return [(Op.UPDATE, None, row((number * 7919 + i * 131) % ROWS, number)) for i in range(5)]


def a_queue(number: int) -> list[Change]:
    """Rows come, and go again."""
    there: Row = (f"k{number}", None, None)
    return [(Op.DELETE, there, None), (Op.INSERT, None, row(ROWS + number, number))]


def segment(changes: list[Change], number: int) -> Segment:
    order = np.array([10 + 2 * number], dtype=np.int64)
    at = Position(11 + 2 * number, str(number))
    return Segment([Changes(batch(SCHEMA, changes))], Transactions(order, order, order, str), Checkpoint(at, "{}"))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_what_depends_on_a_shape_alone_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O50: a question about a small segment takes longer to build than to ask; another shape has another one."""
    built: list[int] = []
    build = fitting.any_of

    def counted(conditions: Sequence[exp.Expression]) -> exp.Expr:
        built.append(len(conditions))
        return build(conditions)

    monkeypatch.setattr(fitting, "any_of", counted)
    target = DuckDbTarget(tmp_path / "t.duckdb", MEMORY)
    target.open()
    reset = segment([], 0)
    target.apply(replace(reset, steps=[Reset(DATES)]))
    counts = []
    for number in range(1, 6):
        changes = [(Op.INSERT, None, (str(number), f"2026-01-3{number % 2}"))]  # of which a look does not tell
        order = np.array([10 + 2 * number], dtype=np.int64)
        at = Checkpoint(Position(11 + 2 * number, str(number)), "{}")
        target.apply(Segment([Changes(batch(DATES, changes))], Transactions(order, order, order, str), at))
        counts.append(len(built))
    target.close()
    assert counts == [1] * 5


@pytest.mark.parametrize("work", [same_rows, all_over, a_queue])
def test_neither_time_nor_file_nor_memory_grow(tmp_path: Path, work: Callable[[int], list[Change]]) -> None:
    """D-11, D-12, E-08: the last quarter of many commits is as the second, but for what chance does."""
    path = tmp_path / "t.duckdb"
    target = DuckDbTarget(path, MEMORY)
    target.open()
    threshold = max(64_000, 64_000_000 * COMMITS // 800_000)
    target._file.connection.execute(f"SET checkpoint_threshold = '{threshold}B'")
    target.apply(Segment([Reset(SCHEMA)], Transactions.none(), Checkpoint(Position(1, "1"), "{}")))
    target.apply(segment([(Op.INSERT, None, row(key, 0)) for key in range(ROWS)], 0))
    target._file.connection.execute("CHECKPOINT")
    cpu, files, sizes = [], [], []
    quarter = COMMITS // 4
    for part in range(4):
        began = time.process_time()
        for number in range(part * quarter, (part + 1) * quarter):
            target.apply(segment(work(number), number + 1))
        cpu.append((time.process_time() - began) / quarter * 1000)
        files.append((path.stat().st_size) / 1e6)
        sizes.append(resident_mb())
    found = target._file.connection.execute("SELECT count(*), count(DISTINCT c0) FROM s.t").fetchone()
    groups = target._file.connection.execute(
        "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('s.t')"
    ).fetchone()
    target.close()
    print(f"{work.__name__}: ms of CPU {cpu}, file MB {files}, resident MB {sizes}, row groups {groups}")
    assert found == (ROWS, ROWS)
    assert cpu[3] < 2.5 * cpu[1] + 1, "a commit takes longer the more there were"
    assert files[3] < 2 * files[1] + 2, "the file grows with the commits"
    assert sizes[3] < sizes[1] + 40, "memory grows with the commits"


FILL = """
import os, sys
from pathlib import Path
from tests.targets.test_small_commits import *
target = DuckDbTarget(Path(sys.argv[1]), 256 << 20)
target.open()
target._file.connection.execute("SET checkpoint_threshold = '1GB'")
target.apply(Segment([Reset(SCHEMA)], Transactions.none(), Checkpoint(Position(1, "1"), "{}")))
for number in range(60):
    changes = [(Op.INSERT, None, row(number * 2000 + i, number)) for i in range(2000)]
    if number:
        changes += [(Op.UPDATE, None, row((number - 1) * 2000 + i, number)) for i in range(2000)]
    target.apply(segment(changes, number + 1))
os.kill(os.getpid(), 9)
"""


def test_a_kill_with_a_large_log_of_duckdb(tmp_path: Path) -> None:
    """D-11: killed with a log that no checkpoint bounded, with rows replaced in it; little memory opens it."""
    path = tmp_path / "t.duckdb"
    done = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr[-2000:]
    log = Path(f"{path}.wal")
    assert log.stat().st_size > 15e6
    target = DuckDbTarget(path, 64 << 20)
    assert target.open() == Checkpoint(Position(11 + 2 * 60, "60"), "{}")
    found = target._file.connection.execute("SELECT count(*), count(DISTINCT c0), min(c2), max(c2) FROM s.t").fetchone()
    assert found == (120000, 120000, "1", "9")
    target.apply(segment([(Op.UPDATE, None, row(i, 99)) for i in range(1000)], 61))
    target.close()
    assert not log.exists()
