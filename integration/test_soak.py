"""The long run itself: what it calls growth, its page, and a run of seconds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from integration.soak.growth import MEASURES, growths
from integration.soak.page import chart, keep, runs, samples_of, tables, write
from integration.soak.run import Outcome, Soak
from integration.soak.samples import Sample, Samples, line
from integration.soak.slopes import trend
from integration.soak.sources import open_source
from tests.seeds import some

_SECONDS = np.arange(0.0, 3600.0, 5.0)
_LOOKS = [5.0 * number for number in range(720)]


def sample(second: float, start: int = 1, resident: float = 200.0, commits: int | None = 0) -> Sample:
    return Sample(second, start, second, resident, 50.0, 10.0, 5.0, 1.0, second / 10, commits, 0.5, 0.1)


@given(slope=st.floats(-1e3, 1e3), noise=st.floats(0.0, 50.0), seed=st.integers(0, 1000))
def test_a_line_with_noise_gives_its_slope(slope: float, noise: float, seed: int) -> None:
    """The noise is of single samples, and one in fifty is far off, which moves a median by less than a sample or two."""
    rng = np.random.default_rng(seed)
    spikes = np.where(rng.random(len(_SECONDS)) < 0.02, 1e4, 0.0)
    found = trend(_SECONDS, 100 + slope * _SECONDS / 3600 + rng.normal(0, noise, len(_SECONDS)) + spikes)

    assert found is not None
    assert found.low <= found.per_hour <= found.high
    assert abs(found.per_hour - slope) <= noise + 0.01 * abs(slope) + 1e-6


@given(periods=st.floats(4.0, 200.0), phase=st.floats(0.0, 1.0), height=st.floats(0.1, 1e3))
def test_a_sawtooth_gives_none(periods: float, phase: float, height: float) -> None:
    """What rises and falls, four times and more, does not surely grow, or by less than one of its teeth."""
    values = height * ((_SECONDS / 3600 * periods + phase) % 1)
    found = trend(_SECONDS, values)

    assert found is not None
    assert not found.is_more_than(height / 2)


def test_a_few_samples_give_none() -> None:
    """Nothing is said of what was hardly seen."""
    assert trend(_SECONDS[:20], _SECONDS[:20]) is None
    assert trend(_SECONDS, np.full_like(_SECONDS, np.nan)) is None


def test_growth_is_found_in_the_life_of_a_process() -> None:
    """The first process has more memory than the second, which lives longer, and grows."""
    short = [sample(second, 1, 400.0) for second in np.arange(0, 600, 5.0)]
    long = [sample(second, 2, 100 + second / 36) for second in np.arange(600, 3600, 5.0)]
    findings = [growth.finding for growth in growths(Samples([*short, *long])) if growth.finding]

    assert findings == [
        "Resident memory grew by 62.36 MB in 0.6 hours",
        "of it not DuckDB's grew by 62.36 MB in 0.6 hours",
    ]


def test_more_than_ever_is_allowed_is_a_finding() -> None:
    """One moment suffices, in any process."""
    looks = [sample(second, 1, 1000.0 if second == 50 else 200.0) for second in _LOOKS]
    findings = [growth.finding for growth in growths(Samples(looks)) if growth.finding]

    assert findings == ["Resident memory was 1,000 MB, above 584"]


def test_what_a_commit_takes_is_counted_in_one_process() -> None:
    """CPU and commits begin with each process, and commits are not known until it follows."""
    looks = [
        sample(0, 1, commits=100),
        sample(10, 1, commits=600),
        sample(20, 2, commits=None),
        sample(30, 2, commits=5),
    ]
    cpu = Samples(looks).of("cpu_ms")

    np.testing.assert_array_equal(cpu, [np.nan, 2.0, np.nan, np.nan])


def test_samples_are_read_again(tmp_path: Path) -> None:
    """Also from a file whose last line was cut off."""
    file = tmp_path / "samples.jsonl"
    file.write_bytes(line(sample(5)) + line(sample(10)) + line(sample(15))[:-9])

    np.testing.assert_array_equal(Samples.read(file).of("second"), [5, 10])


def test_the_page_is_written_again(tmp_path: Path) -> None:
    """What is between the marks is replaced, and the rest of the page stays."""
    folder, docs = tmp_path / "soak", tmp_path / "docs"
    folder.mkdir()
    docs.mkdir()
    (docs / "correctness.md").write_text("before\n<!-- soak: begin -->\nold\n<!-- soak: end -->\nafter\n")
    for source in ("postgresql", "mariadb"):
        keep(folder, Outcome(source, 1, 500.0, seconds=3600, working_seconds=3000, commits=1_500_000))
        samples_of(folder, source).write_bytes(b"".join(line(sample(second)) for second in _LOOKS))
    for _ in range(2):
        write(folder, tmp_path)
    page = (docs / "correctness.md").read_text()

    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert "| commits a second, asked for and reached | 500, 500 | 500, 500 |" in page
    assert "| Target file, MB | 10, 10; +0 (+0 to +0) | 10, 10; +0 (+0 to +0) |" in page
    drawn = (docs / "soak.svg").read_text()
    assert all(measure.title in drawn.replace("&#39;", "'") for measure in MEASURES)
    assert "<script" not in drawn


@pytest.mark.long
@pytest.mark.timeout(1200)  # a dozen processes begin in it, one after the other
@pytest.mark.parametrize("source", some(("postgresql", "mysql", "mariadb"), 1, "a short soak"))
def test_a_short_run(tmp_path: Path, source: str) -> None:
    """Every part of it takes place."""
    said = io.StringIO()
    with open_source(source) as live:
        soak = Soak(live, tmp_path, samples_of(tmp_path, source), 0.3, 100.0, 1, Console(file=said), parts=1)
        outcome = soak.run()
    keep(tmp_path, outcome)

    assert not outcome.differences, said.getvalue()
    assert (outcome.comparisons, outcome.verifications) == (2, 2)
    assert outcome.commits > 50
    assert outcome.starts >= 2
    ((_, samples),) = runs(tmp_path)
    assert len(samples) >= 2
    assert np.isfinite(samples.of("duckdb_mb")).any()  # the process answers what DuckDB holds
    assert chart(runs(tmp_path))
    assert "| verifications under load, rows verified | 2, " in tables(runs(tmp_path))
