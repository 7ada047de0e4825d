"""One reading of times and positions: by the commands, and by the macros of a history."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from cdc.errors import UsageError
from cdc.model.moment import Moment
from cdc.targets.duckdb import open_histories
from tests.targets.recorded_history import ZONE, keep

TIMES = {
    "2026-01-31": 1_769_817_600_000_000,
    "2026-01-31 12:00": 1_769_860_800_000_000,
    "2026-01-31T12:00:00Z": 1_769_860_800_000_000,
    "2026-01-31 12:00:00.000001+00": 1_769_860_800_000_001,
    "2026-01-31 12:00:00-05": 1_769_878_800_000_000,
    "2026-01-31T17:30:00+05:30": 1_769_860_800_000_000,
    "@1769860800": 1_769_860_800_000_000,
    "@1769860800.25": 1_769_860_800_250_000,
}
NEITHER = [
    "2026",
    "20261129",
    "1769860800",
    "1769860800000",
    "-1",
    "",
    "tomorrow",
    "2026-13-01",
    "2026-01-31 25:00",
    "12:00",
]
UNKNOWN = [
    ("2024-12-31", "before this history begins: at 0/A, 2025-01-01 00:00:00"),
    ("0/9", "before this history begins: at 0/A, 2025-01-01 00:00:00"),
    ("2999-01-01", "2999-01-01 00:00:00.* is in the future"),
    ("@99999999999", "is in the future"),
    ("FFFFFFFF/FFFFFFFF", "is in the future: this history ends at 0/14"),
    ("0/15", "is in the future: this history ends at 0/14"),
    ("0-1-5", "neither a position that this history knows"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commits at 10, 12, 13 (a copy), 14 and 15, whose clock is of long ago. The second table begins at 13."""
    return keep(tmp_path_factory.mktemp("h") / "h.duckdb")


@pytest.fixture
def sql(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A session in another zone than UTC."""
    with duckdb.connect(str(file), read_only=True) as connection:
        connection.execute(f"SET TimeZone = '{ZONE}'")
        yield connection


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_one_moment_everywhere(sql: duckdb.DuckDBPyConnection, text: str) -> None:
    """H2: a time without a zone is UTC, whatever the zone of the session or the machine; epochs are written with @."""
    assert Moment.parse(text).time == TIMES[text]
    expected = 13 if text == "2026-01-31" else 15
    assert sql.execute("SELECT _cdc_history.place(?)", [text]).fetchone() == (expected,)


@pytest.mark.parametrize("text", NEITHER)
def test_what_is_neither_is_refused(file: Path, sql: duckdb.DuckDBPyConnection, text: str) -> None:
    """H3: a bare number is neither a time nor a position."""
    with pytest.raises(UsageError, match=r"not a time|neither a time nor a position"):
        Moment.parse(text)
    with pytest.raises(duckdb.InvalidInputException, match="neither a position that this history knows nor a time"):
        sql.execute("FROM s.t_as_of(?) WHERE c0 = '1'", [text])
    if text.isdigit():
        with pytest.raises(duckdb.InvalidInputException, match="neither a position"):
            sql.execute(f"FROM s.t_as_of({text})")


@pytest.mark.parametrize(("text", "said"), UNKNOWN)
def test_what_is_not_known_is_an_error(file: Path, sql: duckdb.DuckDBPyConnection, text: str, said: str) -> None:
    """O31, H9: before a history begins and after it ends, also where the table has no row, and where a filter leaves
    none."""
    for query in ("FROM s.t_as_of(?)", "FROM s.empty_as_of(?)", "FROM s.t_as_of(?) WHERE c0 = '7'"):
        with pytest.raises(duckdb.InvalidInputException, match=said):
            sql.execute(query, [text])
    sql.close()
    with open_histories(str(file)) as histories, pytest.raises(UsageError, match=said):
        histories.place(histories.table("t"), text)


def test_each_table_has_its_own_beginning(file: Path, sql: duckdb.DuckDBPyConnection) -> None:
    """O31: what a table was before it came into the history is not known."""
    assert sql.execute("FROM s.t_as_of('0/C')").fetchall() == [("1",), ("2",)]
    with pytest.raises(duckdb.InvalidInputException, match="before this history begins: at 0/D"):
        sql.execute("FROM s.late_as_of('0/C')")


def test_a_table_that_comes_by_parts_begins_with_the_last(tmp_path: Path) -> None:
    """O31: of which rows there were before nothing is known; of some parts alone a table is not to be shown."""
    for is_whole in (False, True):
        file = keep(tmp_path / f"{is_whole}.duckdb", is_whole=is_whole)
        with open_histories(str(file)) as histories:
            known = histories.table("parted")
            said = "before this history begins: at 0/F" if is_whole else "still being copied"
            for early in ("0/E", "2026-01-31 00:00", *(() if is_whole else ("0/F",))):
                with pytest.raises(UsageError, match=said):
                    histories.place(known, early)
            if is_whole:
                assert histories.place(known, "0/F").order == 15


def test_a_clock_that_disagrees_moves_nothing(file: Path) -> None:
    """H1: a commit whose own clock is of long ago, or of the future, does not change what was before it."""
    with open_histories(str(file)) as histories:
        known = histories.table("t")
        assert [histories.place(known, at).order for at in ("2025-06-01", "2025-07-31", "2025-12-31")] == [10, 12, 13]
        place = histories.place(known, "2026-01-31 12:00")
        assert str(place) == "As of 2026-01-31 12:00:00+00: the last commit up to then is 0/F, 2001-09-09 01:46:40+00."


def test_a_file_of_an_older_version_is_read(file: Path, tmp_path: Path) -> None:
    """O31: the macro of a file that an older version made is not relied on."""
    old = tmp_path / "old.duckdb"
    shutil.copy(file, old)
    with duckdb.connect(str(old)) as connection:
        connection.execute("ALTER TABLE _cdc_history.tables DROP COLUMN since; DROP MACRO _cdc_history.place")
    with open_histories(str(old)) as histories:
        known = histories.table("t")
        assert histories.place(known, "0/C").order == 12
        with pytest.raises(UsageError, match="before this history begins"):
            histories.place(known, "2024-12-31")
