"""The pages that the program makes of itself are as it is now, and the others say all that they have to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from integration.reference import PAGES, ROOT, messages, public_errors


@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_is_as_the_program_is(name: str) -> None:
    """`make reference` writes it again."""
    assert (ROOT / name).read_text() == PAGES[name]()


@pytest.mark.parametrize(("section", "command"), [("Start", "make demo"), ("Test", "make test")])
def test_the_project_starts_and_is_tested_by_one_command(section: str, command: str) -> None:
    """Programs read these two sections of README.md."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert re.findall(r"^    (.*)$", text, re.MULTILINE) == [command]
    assert text.startswith(f"\n    {command}\n")


def test_messages_are_found() -> None:
    found = {message.text: message for message in messages()}
    assert found["A journal has no slots."].hint == "Leave --slot out, and write --from."
    assert len(found) > 300


def test_every_error_has_an_entry_in_troubleshooting() -> None:
    entries = re.findall(r"^## .*\{#(\w+)\}$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(entries) == len(set(entries))
    assert {kind.__name__.lower() for kind in public_errors()} <= set(entries)


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Every link leads somewhere, every page is in the navigation; without a network."""
    site = tmp_path / "site"
    build = (sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(site))
    nowhere = {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "NO_MKDOCS_2_WARNING": "1",
    }
    done = subprocess.run(build, cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?(https?:[^\s\">]*)", text)
        loaded += re.findall(r"<link\b[^>]*\brel=\"?stylesheet\"?[^>]*\bhref=\"?(https?:[^\s\">]*)", text)
        assert loaded == [], page.name
