"""Every target: the corpus. Some of them, of which each commit has its own: two seconds of new inputs.

`CDC_CHOICES=all` gives them to all, and `FUZZ_SECONDS` makes them more.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.bounds import bounded
from tests.fuzz.corpus import CORPUS, LONGEST, TARGETS, inputs
from tests.seeds import SEED, some

pytest.importorskip("atheris", reason="atheris has wheels for Linux only")

SECONDS = os.environ.get("FUZZ_SECONDS", "2")
SEARCHED = some(TARGETS, 5)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_once(target: str) -> None:
    """A-71 to A-77, B-14, B-22, E-10: inputs that once led to something else than an answer or a refusal."""
    one_input = importlib.import_module(f"tests.fuzz.targets.{target}").one_input
    one_input(b"")
    files = inputs(target)
    assert files, f"{target} has no corpus"
    for file in files:
        try:
            bounded(one_input)(file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file.relative_to(CORPUS)}: {error!r}") from error


@pytest.mark.parametrize("target", SEARCHED)
def test_what_may_be_found_now(target: str, tmp_path: Path) -> None:
    """A-71 to A-77, B-14, B-22, E-10: whatever the bytes are, only what the code promises comes out, and soon."""
    print(f"CDC_SEED={SEED}")
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", SECONDS, "--seed", SEED, "--found", tmp_path]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace", check=False)
    assert run.returncode == 0, f"CDC_SEED={SEED}\n{run.stdout[-6000:]}\n{run.stderr[-2000:]}"
    tried = re.search(r"number_of_executed_units: (\d+)", run.stderr)
    assert tried is not None, run.stderr[-2000:]
    assert int(tried[1]) >= len(inputs(target))


def test_the_corpus_is_small() -> None:
    """It is read in full by every run, and by everybody who clones the repository."""
    sizes = [file.stat().st_size for target in TARGETS for file in inputs(target)]
    assert max(sizes) <= LONGEST
    assert sum(sizes) < 200_000
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


def test_a_defect_is_found(tmp_path: Path) -> None:
    """That the search is guided, and that what it finds fails the run: a target that must not see one word."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.planted", f"-artifact_prefix={tmp_path}/", "-max_total_time=60", "-seed=1"],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert run.returncode != 0, run.stderr[-2000:]
    assert "found it" in run.stdout + run.stderr
    (crash,) = tmp_path.glob("crash-*")
    assert crash.read_bytes().startswith(b"wal")
