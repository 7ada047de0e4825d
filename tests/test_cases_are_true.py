"""tests/CASES.md says the truth: what it names exists, and what tests name is in it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Failure modes as `A-38`, findings as `P9`.
CASE = re.compile(r"\b(?:[A-E]-\d\d|[PMOH]\d{1,2})\b")


def test_every_case_that_a_test_names_is_listed_with_that_file() -> None:
    listed: dict[str, str] = {}
    for line in (ROOT / "tests" / "CASES.md").read_text().splitlines():
        if (match := re.match(rf"\| ({CASE.pattern}) \| (.*) \|$", line)) is not None:
            listed[match[1]] = match[2]
    for folder in ("tests", "integration"):
        for file in set((ROOT / folder).rglob("test_*.py")) - {Path(__file__)}:
            for case in _cases(file.read_text()):
                assert case in listed, f"{file.name} covers {case}, which CASES.md does not list"
                assert file.name in listed[case], f"CASES.md does not say that {file.name} covers {case}"
    for case, text in listed.items():
        for name in re.findall(r"`((?:tests|integration)/[\w/]+\.py)`", text):
            assert case in _cases((ROOT / name).read_text()), f"{name} does not cover {case}"


def _cases(text: str) -> set[str]:
    """Cases that a file names; `A-37 to A-40` and `P1 to P8` name those between as well."""
    found = set(CASE.findall(text))
    for section, first, last in re.findall(r"\b([A-E]-|[PMOH])(\d{1,2}) to (?:[A-E]-|[PMOH])(\d{1,2})\b", text):
        digits = 2 if "-" in section else 1
        found |= {f"{section}{number:0{digits}d}" for number in range(int(first), int(last) + 1)}
    return found
