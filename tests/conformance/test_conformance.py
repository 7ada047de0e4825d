"""The targets that need no server are held to what every target has to do; `CDC_CONFORMANCE_ROUNDS` makes it longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdc.target import Mode
from cdc.targets.duckdb import ABILITIES
from cdc.testing import conformance
from tests.conformance.places import MEMORY, duckdb_file, memory
from tests.seeds import SEED

ROUNDS = int(os.environ.get("CDC_CONFORMANCE_ROUNDS", "1"))


def some(checks: list[conformance.Check]) -> list[conformance.Check]:
    """All checks of a mirror, and in the short form every third one of other modes, which each commit chooses."""
    return [
        check
        for number, check in enumerate(checks)
        if check.mode is Mode.MIRROR or ROUNDS > 1 or (number + SEED) % 3 == 0
    ]


@pytest.mark.parametrize("check", conformance.checks(MEMORY, rounds=ROUNDS, seed=SEED), ids=str)
def test_memory(check: conformance.Check) -> None:
    check(memory())


@pytest.mark.parametrize("check", some(conformance.checks(ABILITIES, rounds=ROUNDS, seed=SEED)), ids=str)
def test_duckdb(check: conformance.Check, tmp_path: Path) -> None:
    """A-41, A-46, A-50, D-01, D-05, D-17: in each of the modes."""
    check(duckdb_file(tmp_path, ABILITIES))
