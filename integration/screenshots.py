"""Takes the pictures of docs/dashboard.md: `python -m integration.screenshots`, about three minutes.

Each is of a real pipeline that is so: while it copies a large table, after some work, while a table is compared because
its type was changed, and once its source is gone.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from playwright.sync_api import Browser

from cdc.demo import shop
from cdc.demo.server import PrivatePostgres
from integration.browser import Opened, chromium
from integration.followed import Followed

_PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
_VISITS = 2_500_000
_MOST_BYTES = 150_000
_WORKS_FOR = 80.0  # seconds


def _take(
    browser: Browser, followed: Followed, name: str, verdict: str, *, width: int = 1080, dark: bool = False
) -> None:
    with Opened(browser, followed.url, width=width, height=700, dark=dark) as opened:
        opened.page.wait_for_timeout(200)
        file = _PICTURES / f"{name}.png"
        opened.page.screenshot(path=file, full_page=True)
        size = file.stat().st_size
        assert size < _MOST_BYTES, (name, size)
        assert opened.text("#verdict-word") == verdict, name
        print(f"{file.name}: {size:,} bytes, {opened.complaints}", flush=True)


def _is_well(report: dict[str, Any]) -> bool:
    return report["verification"] is not None and report["health"] == "green" and report["lag_seconds"] < 2


def _shop(server: PrivatePostgres) -> str:
    dsn = server.create_database("shop")
    with psycopg.connect(dsn, autocommit=True) as connection:
        shop.create(connection)
        connection.execute("CREATE TABLE shop.visits (id bigint PRIMARY KEY, page text, seconds integer)")
        connection.execute(
            f"INSERT INTO shop.visits SELECT id, 'page ' || id, id % 600 FROM generate_series(1, {_VISITS}) AS id"
        )
        connection.execute("ANALYZE")
    return dsn


@contextlib.contextmanager
def _work(dsn: str) -> Iterator[None]:
    """An ordinary time, after one burst in it."""
    workload = shop.Workload(dsn, 200)
    workload.start()
    time.sleep(_WORKS_FOR / 2)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"UPDATE shop.visits SET seconds = seconds + 1 WHERE id < {_VISITS // 5}")
    time.sleep(_WORKS_FOR / 2)
    yield
    workload.stop()


def main() -> None:
    """Take all of them."""
    _PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),  # so that the target has a name that is short to read
        chromium(Path(folder)) as browser,
        PrivatePostgres(18, settings={"max_slot_wal_keep_size": "4GB"}) as server,
    ):
        dsn = _shop(server)
        target = "duckdb:shop.duckdb"
        arguments = (dsn, target, "--verify-every", "30s", "--max-rate", "30000", "--max-lag", "15s")
        with Followed(Path(folder), *arguments) as followed:
            followed.until(lambda report: report["rows"]["copied"] > _VISITS // 10)
            _take(browser, followed, "copying", "Copying")
            followed.until(lambda report: report["phase"] == "streaming")
            with _work(dsn):
                followed.until(_is_well, 200)
                _take(browser, followed, "healthy", "All is well")
                _take(browser, followed, "dark", "All is well", dark=True)
                _take(browser, followed, "phone", "All is well", width=360)
            server.execute("ALTER TABLE shop.visits ALTER seconds TYPE bigint", "shop")
            server.execute("INSERT INTO shop.visits VALUES (0, 'the first after it', 1)", "shop")
            followed.until(lambda report: report["health"] == "amber")
            _take(browser, followed, "suspect", "Checking 1 table")
            followed.until(lambda report: report["health"] == "green", 200)
            server.stop()
            followed.until(lambda report: report["lag_seconds"] > 15 and len(report["problems"]) > 1)
            _take(browser, followed, "failed", "Needs attention")


if __name__ == "__main__":
    main()
