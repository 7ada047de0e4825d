"""The page at `/` in a real browser: what it shows is what the pipeline says, and it never looks better than that is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from integration.browser import Opened, chromium
from integration.conftest import Database, make_database
from integration.followed import Followed
from integration.processes import cdc

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database with twelve tables, of which one would like to be HTML."""
    for database in make_database(request.getfixturevalue("postgres")):
        database.execute("CREATE TABLE orders (id int PRIMARY KEY, price numeric)")
        database.execute("INSERT INTO orders SELECT id, 1 FROM generate_series(1, 1234) AS id")
        database.execute(f'CREATE TABLE "{HOSTILE}" (id int PRIMARY KEY)')
        for number in range(10):
            database.execute(f"CREATE TABLE small_{number} (id int PRIMARY KEY)")
        yield database


@pytest.fixture(scope="module")
def followed(shop: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("shop")
    with Followed(folder, shop.dsn, f"duckdb:{folder / 'shop.duckdb'}", "--verify-every", "2s") as running:
        running.until(lambda report: report["phase"] == "streaming")
        yield running


def assert_calm(opened: Opened, origin: str) -> None:
    """No error, no line in the console, no dialog, and no request that leaves where the page is from."""
    assert opened.complaints == []
    assert {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in opened.requests} == {origin}


def test_the_page_shows_what_the_pipeline_says(browser: Browser, followed: Followed, shop: Database) -> None:
    """Rows that were inserted, updated and deleted; how far behind; how each table stands; what was compared."""
    with Opened(browser, followed.url) as opened:
        shop.execute("INSERT INTO orders SELECT id, 2 FROM generate_series(10001, 10007) AS id")
        shop.execute("UPDATE orders SET price = 3 WHERE id <= 5")
        shop.execute("DELETE FROM orders WHERE id IN (6, 7, 8)")
        for field, count in (("inserted", "7"), ("updated", "5"), ("deleted", "3")):  # which need not come at once
            opened.wait(f"tr[data-key='public.orders'] [data-field={field}]", count)
        report = followed.report()
        row = opened.row("public.orders")

        assert report["tables"]["public.orders"]["inserted"] == 7
        assert (row["copied"], row["inserted"], row["updated"], row["deleted"]) == ("1,234", "7", "5", "3")
        assert row["state"] == "following"
        opened.wait("#verdict-word", "All is well")
        assert opened.text("#verdict .why") == "All 12 tables follow the source."
        assert opened.text("#verdict .name").endswith(f" {report['target']}")
        assert opened.text("#verdict [data-field=behind]").endswith(" s")
        assert float(opened.text("#verdict [data-field=behind]").removesuffix(" s")) < 60
        assert opened.text("[data-field=doing]") == "Following the log"
        opened.wait("[data-field=checked]", "No difference")
        assert opened.row("public.orders")["compared"].startswith("same, ")
        assert opened.page.title().startswith("All is well")
        assert opened.text("#connection-word") == "Live"
        opened.page.wait_for_selector("#lag canvas")
        assert opened.text("#room").count("not about to") >= 1
        assert_calm(opened, followed.url)


def test_a_name_from_the_database_is_text(browser: Browser, followed: Followed) -> None:
    """E-03, O44: a table may be called whatever its owner likes, and stays a name."""
    with Opened(browser, followed.url) as opened:
        assert opened.row(f"public.{HOSTILE}")["table"] == f"public.{HOSTILE}"
        assert opened.page.query_selector("img") is None
        assert_calm(opened, followed.url)


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, followed: Followed) -> None:
    """360 px are what small phones have. Each number has its label beside it there."""
    with Opened(browser, followed.url, width=360, height=640) as opened:
        opened.page.wait_for_selector("#tables tbody tr")

        assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
        label = "getComputedStyle(document.querySelector('[data-label=Inserted]'), '::before').content"
        assert opened.page.evaluate(label) == '"Inserted"'
        assert_calm(opened, followed.url)


def _contrast(opened: Opened, selector: str) -> float:
    """Of a text and what is behind it, by WCAG's formula."""
    ratio: float = opened.page.evaluate(
        """selector => {
            const numbers = text => text.match(/[\\d.]+/g).map(Number);
            const bright = text => numbers(text).slice(0, 3)
                .map(value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
                .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
            let node = document.querySelector(selector);
            const text = bright(getComputedStyle(node).color);
            const clear = node => { const rgba = numbers(getComputedStyle(node).backgroundColor); return rgba.length === 4 && rgba[3] === 0; };
            while (clear(node)) node = node.parentElement;
            const ground = bright(getComputedStyle(node).backgroundColor);
            return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        }""",
        selector,
    )
    return ratio


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_light_or_dark_and_always_readable(browser: Browser, followed: Followed, dark: bool) -> None:
    """WCAG asks for 4.5 to 1; text of each tone is looked at, whatever the state is just now."""
    with Opened(browser, followed.url, dark=dark) as opened:
        opened.page.wait_for_selector("#tables tbody tr")
        ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(16, 18, 20)") is dark
        places = ["#verdict-word", ".note", ".why", ".state", "dt", "thead th", "footer a", ".pill"]
        tones = ["good", "busy", "care", "bad", "none"]
        for tone in tones:
            opened.page.evaluate(
                "tone => document.querySelectorAll('#verdict, .state, .pill').forEach(node => {"
                f"node.classList.remove(...{tones}); node.classList.add(tone); }})",
                tone,
            )
            assert {place: ratio for place in places if (ratio := _contrast(opened, place)) < 4.5} == {}, tone
        assert_calm(opened, followed.url)


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser, followed: Followed) -> None:
    """The order is that of the page, and the focus is seen."""
    with Opened(browser, followed.url) as opened:
        reached = []
        for _ in range(4):
            opened.page.keyboard.press("Tab")
            reached.append(opened.page.evaluate("document.activeElement.textContent"))
            style = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style == "solid", reached

        assert reached == ["Skip to the details", "", "status.json", "metrics"]
        assert opened.page.get_attribute("#verdict-word", "aria-live") == "polite"
        assert opened.page.get_attribute("#connection", "role") == "status"
        headers = opened.page.get_by_role("columnheader").all_text_contents()
        assert headers[:2] == ["Table", "State"]
        assert opened.page.get_by_role("row").count() == 13
        assert opened.page.get_by_role("searchbox", name="Show tables whose name has").count() == 1
        opened.page.wait_for_selector("#lag canvas")  # there have to be two points
        assert opened.page.get_by_role("img", name="How far behind").count() == 1
        assert_calm(opened, followed.url)


def test_a_page_that_has_lost_its_process_does_not_look_healthy(
    browser: Browser, shop: Database, tmp_path: Path
) -> None:
    """It says so at once, in its title as well, greys what it shows, and goes on when the process is back."""
    target = f"duckdb:{tmp_path / 'lost.duckdb'}"
    with Followed(tmp_path, shop.dsn, target, "--name", "lost") as first:
        first.until(lambda report: report["phase"] == "streaming")
        with Opened(browser, first.url) as opened:
            opened.wait("#verdict-word", "All is well")
            first.process.kill()
            killed_at = time.monotonic()
            opened.wait("#verdict-word", "Connection lost")

            assert time.monotonic() - killed_at < 10
            assert opened.page.evaluate("document.body.className") == "lost"
            assert opened.page.title().startswith("Connection lost")
            assert "grayscale" in opened.page.evaluate("getComputedStyle(document.querySelector('main')).filter")
            assert opened.text("#verdict .why").startswith("What you see is how it was at ")
            first.process.wait(30)
            with Followed(tmp_path, shop.dsn, target, "--name", "lost", port=first.port):
                opened.wait("#verdict-word", "All is well")
                assert opened.text("#connection-word") == "Live"
                assert opened.page.evaluate("document.body.className") == ""


WELL = {"running": True, "phase": "streaming", "problems": [], "failure": None, "tables": {"a": {"state": "following"}}}
OTHER = {"state": "following"}


@pytest.mark.parametrize(
    ("kind", "word", "report"),
    [
        ("good", "All is well", {}),
        ("bad", "Stopped", {"running": False, "phase": "stopped", "failure": "The slot is gone."}),
        ("bad", "Needs attention", {"problems": ["It is 900 s behind."]}),
        ("bad", "1 table held", {"problems": ["Held: a."], "tables": {"a": {"state": "held"}, "b": OTHER}}),
        ("bad", "Needs attention", {"problems": ["Held: a.", "It fails."], "tables": {"a": {"state": "held"}}}),
        ("busy", "Opening", {"phase": "opening", "tables": {}}),
        ("care", "Trying again", {"phase": "waiting", "failure": "The connection was lost."}),
        ("busy", "Copying", {"phase": "copying", "tables": {"a": {"state": "copying"}, "b": OTHER}}),
        ("busy", "Copying", {"tables": {"a": {"state": "copying"}, "b": {"state": "suspect"}}}),
        ("care", "Checking 1 table", {"tables": {"a": {"state": "suspect"}, "b": OTHER}}),
        ("care", "Checking 2 tables", {"tables": {"a": {"state": "suspect"}, "b": {"state": "suspect"}}}),
        ("none", "No tables", {"tables": {"a": {"state": "left out"}}}),
    ],
)
def test_the_verdict(browser: Browser, followed: Followed, kind: str, word: str, report: dict[str, object]) -> None:
    """O12, O29: whatever is not as it should be, the one word in large letters is another one."""
    page = browser.new_page()
    page.goto(followed.url)
    found = page.evaluate("report => import('/page/words.js').then(words => words.verdict(report))", WELL | report)
    page.close()

    assert found[:2] == [kind, word]


def test_a_run_that_has_ended_says_what_to_do(browser: Browser, shop: Database, tmp_path: Path) -> None:
    """A process that waits for a person tells that person the same as the log, and nothing on the page is green."""
    arguments = [shop.dsn, f"duckdb:{tmp_path / 'stopped.duckdb'}", "--name", "stopped", "--tables", "public.orders"]
    assert cdc("run", *arguments, "--until-caught-up").returncode == 0
    shop.execute("SELECT pg_drop_replication_slot('cdc_stopped')")
    with Followed(tmp_path, *arguments, "--on-operator-needed", "wait") as running:
        report = running.until(lambda report: not report["running"])
        with Opened(browser, running.url) as opened:
            opened.wait("#verdict-word", "Stopped")
            why = opened.text("#verdict .why")
            assert report["failure"].replace("`", "") in why
            assert report["remedy"].replace("`", "") in why
            assert opened.text("#verdict [data-field=behind]") == "Not known"
            opened.page.wait_for_selector("#errors .remedy")
            assert opened.page.locator("main .good").count() == 0
            assert_calm(opened, running.url)


def test_tables_are_found_by_name(browser: Browser, followed: Followed) -> None:
    """A schema of thousands of tables does not make a page of thousands of rows."""
    with Opened(browser, followed.url) as opened:
        opened.page.get_by_role("searchbox").fill("ORD")
        opened.page.wait_for_function("() => document.querySelectorAll('#tables tbody tr').length === 1")
        assert opened.row("public.orders")["table"] == "public.orders"
        opened.page.get_by_role("searchbox").fill("nothing")
        opened.wait("[data-field=tables-note]", "No table has such a name.")
        assert_calm(opened, followed.url)


def test_of_several_pipelines_one_is_chosen(browser: Browser, shop: Database, tmp_path: Path) -> None:
    """A journal and two targets in one process: a row for each, then the details of the one that was chosen."""
    targets = [f"duckdb:{tmp_path / name}.duckdb" for name in ("one", "two")]
    arguments = [shop.dsn, "--name", "several", "--journal", str(tmp_path / "journal")]
    for target in targets:
        arguments += ["--to", target]
    with Followed(tmp_path, *arguments) as running:
        running.until(lambda report: [feed["phase"] for feed in report["feeds"].values()] == ["streaming"] * 2)
        with Opened(browser, running.url) as opened:
            links = opened.page.get_by_role("navigation", name="Pipelines").get_by_role("link")
            expect(links).to_have_count(3)
            second = links.filter(has_text=targets[1])
            expect(second).to_contain_text("All is well")
            assert links.nth(0).get_attribute("aria-current") == "true"
            second.focus()
            opened.page.keyboard.press("Enter")
            expect(second).to_have_attribute("aria-current", "true")
            assert opened.text("#verdict .name").endswith(targets[1])
            opened.page.wait_for_timeout(1500)  # what comes by events leaves the focus where it is
            assert opened.page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
            assert_calm(opened, running.url)


def test_a_question_and_its_answer(browser: Browser, shop: Database, followed: Followed, tmp_path: Path) -> None:
    """The box is only there where the port answers questions: to the published copy, read only. Values are text."""
    with Opened(browser, followed.url) as opened:
        assert not opened.page.is_visible("#query")
    copy = tmp_path / "copy.duckdb"
    target = f"duckdb:{tmp_path / 'asked.duckdb'}"
    options = ("--tables", "public.orders", "--publish", str(copy), "--publish-every", "1s")
    with Followed(tmp_path, shop.dsn, target, *options) as running:
        running.until(lambda report: bool(report["publication"] and report["publication"]["at"]))
        with Opened(browser, running.url) as opened:
            page = opened.page
            page.wait_for_selector("#query", state="visible")
            page.fill("#sql", f"SELECT min(id) AS \"<b>id</b>\", '{HOSTILE}', NULL, [1] FROM public.orders")
            deadline = time.monotonic() + 60
            while True:  # the process that answers may still be at its first copy
                page.press("#sql", "Control+Enter")
                page.wait_for_selector("#answer :is(table, [role=alert])")
                if page.query_selector("#answer table") is not None:
                    break
                assert time.monotonic() < deadline, opened.text("#answer")
                page.wait_for_timeout(500)
            assert page.locator("#answer th").all_text_contents()[0] == "<b>id</b>"
            assert page.locator("#answer td").all_text_contents() == ["1", HOSTILE, "NULL", "[1]"]
            assert opened.text("#answer caption").startswith("1 row, ")
            page.fill("#sql", "DROP TABLE public.orders")
            page.get_by_role("button", name="Run").click()
            page.wait_for_selector("#answer [role=alert]")
            assert opened.text("#answer").startswith("Nothing is written here")
            assert page.query_selector("#answer i, #answer b, #answer img") is None
