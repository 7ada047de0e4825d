"""Chromium, as `make servers` unpacks it, with the libraries and the font that come with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from cdc.demo.private import cache_folder

_FOLDER = cache_folder() / "chromium"
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{fonts}</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{cache}</cachedir>
  <alias binding="same"><family>system-ui</family><prefer><family>Open Sans</family></prefer></alias>
  <alias binding="same"><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser without a window.

    Args:
        folder: for what it writes.
    """
    fonts = folder / "fonts.conf"
    fonts.write_text(_FONTS.format(fonts=_FOLDER / "fonts", cache=folder / "fonts"))
    environment = {"LD_LIBRARY_PATH": str(_FOLDER / "lib"), "FONTCONFIG_FILE": str(fonts), "HOME": str(folder)}
    arguments = ["--no-sandbox", "--headless", "--disable-gpu", "--font-render-hinting=none"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_FOLDER / "chromium", args=arguments, env=environment, chromium_sandbox=False
        )
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page that somebody has open.

    Attributes:
        complaints: errors of its scripts, lines of its console, and dialogs.
        requests: the addresses of all that it has asked for.
    """

    def __init__(self, browser: Browser, url: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._context: BrowserContext = browser.new_context(
            locale="en-US",
            timezone_id="UTC",
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector("main:not([hidden])")

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def text(self, selector: str) -> str:
        """The text of the first such element."""
        return self.page.text_content(selector) or ""

    def wait(self, selector: str, text: str) -> None:
        """Wait until it has exactly this text."""
        self.page.wait_for_function(
            "([selector, text]) => document.querySelector(selector)?.textContent === text", arg=[selector, text]
        )

    def row(self, table: str) -> dict[str, str]:
        """What is shown of a table, by field."""
        fields: dict[str, str] = self.page.evaluate(
            """table => {
                const row = [...document.querySelectorAll('#tables tbody tr')].find(row => row.dataset.key === table);
                return Object.fromEntries(
                    [...(row?.querySelectorAll('[data-field]') ?? [])].map(node => [node.dataset.field, node.textContent])
                );
            }""",
            table,
        )
        return fields
