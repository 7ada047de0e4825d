"""`python -m integration.soak --minutes N`: a live workload, faults at random times, comparisons, and whether anything grows.

`cdc run` runs as a process of its own, as users run it. Whatever is random comes from the seed, which is printed. It ends with 1
if a comparison found a difference, if the process ended in a way that it should not have, or if something grew.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from integration.soak.growth import growths
from integration.soak.page import FOLDER, figure, keep, outcome_of, runs, samples_of, slope, write
from integration.soak.run import Outcome, Soak
from integration.soak.samples import Samples
from integration.soak.sources import SOURCES, open_source


def soak(source: str, minutes: float, rate: float, seed: int, folder: Path, console: Console) -> list[str]:
    """One source; its findings, which are printed with the figures."""
    outcome_of(folder, source).unlink(missing_ok=True)  # of the run before
    console.print(f"{source}, {minutes:g} minutes, {rate:g} commits a second, seed {seed}", highlight=False)
    with open_source(source) as live, tempfile.TemporaryDirectory(prefix="cdc-soak-") as target:
        outcome = Soak(live, Path(target), samples_of(folder, source), minutes, rate, seed, console).run()
    keep(folder, outcome)
    return show(outcome, Samples.read(samples_of(folder, source)), console)


def show(outcome: Outcome, samples: Samples, console: Console) -> list[str]:
    """Print the slopes; what is wrong."""
    table = Table(
        "", "median", "most", "slope an hour (95 %)", "growth", "", title=outcome.source, title_justify="left"
    )
    grown = growths(samples)
    for growth in grown:
        table.add_row(
            f"{growth.measure.title}, {growth.measure.unit}",
            figure(growth.median),
            figure(growth.most),
            slope(growth.trend),
            f"{figure(growth.trend.growth, '+')} in {growth.trend.hours:.2f} h" if growth.trend else "",
            "[red]grows[/red]" if growth.finding else "",
        )
    console.print(table)
    console.print(
        f"{outcome.commits:,} commits, {outcome.commits_a_second:.0f} a second of {outcome.rate:g}; {outcome.shapes_changed} changes of "
        f"shape; {outcome.starts} starts; {outcome.rows_compared:,} rows compared, {outcome.rows_verified:,} verified",
        highlight=False,
    )
    findings = outcome.differences + [growth.finding for growth in grown if growth.finding is not None]
    for finding in findings:
        console.print(f"[red]{finding}[/red]", highlight=False)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m integration.soak", description=__doc__)
    parser.add_argument("--source", choices=SOURCES, action="append", help="may be repeated; all of them by default")
    parser.add_argument("--minutes", type=float, default=3.0, help="which the sources share")
    parser.add_argument("--rate", type=float, default=500.0, help="commits a second")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for samples and figures")
    parser.add_argument(
        "--docs", action="store_true", help="draw docs/soak.svg and write the tables of docs/correctness.md"
    )
    arguments = parser.parse_args()
    console = Console(width=140)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sources = arguments.source or list(SOURCES)
    findings = [
        finding
        for source in sources
        for finding in soak(
            source, arguments.minutes / len(sources), arguments.rate, arguments.seed, arguments.folder, console
        )
    ]
    if arguments.docs:
        write(arguments.folder, Path())
        console.print(f"{len(runs(arguments.folder))} sources are in docs/correctness.md.", highlight=False)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
