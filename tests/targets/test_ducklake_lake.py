"""Where a lake is, and what errors of its store mean."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cdc.errors import CdcError, DiskFailed, OperatorNeeded, Unavailable, UsageError
from cdc.targets.ducklake.address import parse
from cdc.targets.ducklake.engine import meaning


def test_where_the_rows_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("x.ducklake").data == f"{tmp_path}/x.ducklake.files/"
    assert parse("sqlite:x?data=rows&keep=7").data == f"{tmp_path}/rows/"
    there = parse("postgresql://u@h/d?data=s3://b/p")
    assert (there.data, there.has_local_data, there.file) == ("s3://b/p/", False, None)
    assert parse("x.ducklake").spill == f"{tmp_path}/x.ducklake.tmp"
    assert parse("postgresql://u@h/d?data=rows").spill == f"{tmp_path}/rows.tmp"


@pytest.mark.parametrize(
    "place",
    [
        "",
        "sqlite:",
        "x?data=gs://b/p",
        "x?data=file:///rows",
        "x?keep=-1",
        "x?keeps=1",
        "postgresql://u@h/d",
        "http://x",
    ],
)
def test_what_is_no_lake(place: str) -> None:
    """O34: said at start. A folder that was taken for a store would not be synced."""
    with pytest.raises(UsageError):
        parse(place)


@pytest.mark.parametrize(
    ("failure", "means"),
    [
        (duckdb.IOException("IO Error: Could not connect to server error for HTTP PUT to 'http://x/y'"), Unavailable),
        (duckdb.HTTPException("HTTP Error: Request returned HTTP 503 for HTTP PUT to 'http://x/y'"), Unavailable),
        (duckdb.HTTPException("HTTP Error: Unable to connect to URL s3://x/y: F (HTTP code 403)"), OperatorNeeded),
        (duckdb.HTTPException("HTTP Error: Unable to connect to URL s3://x/y: N (HTTP code 404)"), OperatorNeeded),
        (duckdb.IOException("IO Error: Could not write file"), DiskFailed),
    ],
)
def test_what_errors_of_a_store_mean(failure: duckdb.Error, means: type[CdcError]) -> None:
    """As DuckDB 1.5.5 words them. One that is away is tried again, one that refuses is not."""
    assert type(meaning(failure, parse("x?data=s3://b/p"))) is means
