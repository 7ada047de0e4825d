"""`python -m integration.soak.page [FOLDER]`: draw docs/soak.svg and write the tables of docs/correctness.md again.

FOLDER is what a run has left, which may have ended early.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import orjson
from pygal import XY, Config
from pygal.etree import etree
from pygal.style import CleanStyle

from integration.soak.growth import MEASURES, Growth, Measure, growths
from integration.soak.run import Outcome
from integration.soak.samples import Samples
from integration.soak.slopes import Trend
from integration.soak.sources import SOURCES

FOLDER = Path("build/soak")
_CHART, _PAGE = Path("docs/soak.svg"), Path("docs/correctness.md")
_BEGIN, _END = "<!-- soak: begin -->\n", "<!-- soak: end -->"
_NAMES = {"postgresql": "PostgreSQL 18", "mysql": "MySQL 9.7", "mariadb": "MariaDB 10.11"}
_COLORS = ("#336791", "#c46a00", "#4d8f3a")
_WIDTH, _HEIGHT, _COLUMNS = 400, 240, 3
_POINTS = 200  # of a line

Run = tuple[Outcome, Samples]


def samples_of(folder: Path, source: str) -> Path:
    """The file of a source's samples."""
    return folder / f"{source}.jsonl"


def outcome_of(folder: Path, source: str) -> Path:
    """The file of what happened, which is there once a run is over."""
    return folder / f"{source}.json"


def keep(folder: Path, outcome: Outcome) -> None:
    """Write what happened beside the samples."""
    outcome_of(folder, outcome.source).write_bytes(orjson.dumps(asdict(outcome), option=orjson.OPT_INDENT_2))


def runs(folder: Path) -> list[Run]:
    """Those that a folder has the figures of."""
    files = {source: outcome_of(folder, source) for source in SOURCES}
    return [
        (Outcome(**orjson.loads(file.read_bytes())), Samples.read(samples_of(folder, source)))
        for source, file in files.items()
        if file.exists()
    ]


def chart(runs: list[Run]) -> bytes:
    """Each measure over time, in a picture of its own, with a line for each source."""
    rows = -(-len(MEASURES) // _COLUMNS)
    size = {"width": str(_COLUMNS * _WIDTH), "height": str(rows * _HEIGHT)}
    whole = etree.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {size['width']} {size['height']}", **size
    )
    for number, measure in enumerate(MEASURES):
        part = _part(measure, runs)
        row, column = divmod(number, _COLUMNS)
        place = {"x": column * _WIDTH, "y": row * _HEIGHT, "width": _WIDTH, "height": _HEIGHT}
        part.attrib.update({name: str(value) for name, value in place.items()})
        whole.append(part)
    return etree.tostring(whole) + b"\n"


def _part(measure: Measure, runs: list[Run]) -> etree.Element:
    style = CleanStyle(colors=_COLORS, background="white", plot_background="white", font_family="sans-serif",
                       title_font_size=14, label_font_size=10, major_label_font_size=10, legend_font_size=10)  # fmt: skip
    config = Config(js=(), style=style, no_prefix=True)
    drawn = XY(config, width=_WIDTH, height=_HEIGHT, explicit_size=True, show_dots=False, include_x_axis=True, legend_at_bottom=True,
               title=f"{measure.title}, {measure.unit}", stroke_style={"width": 1.2}, x_label_rotation=0, truncate_legend=-1, truncate_label=-1,
               x_value_formatter=lambda minute: f"{minute:.0f} min", legend_at_bottom_columns=len(SOURCES))  # fmt: skip
    for outcome, samples in runs:
        drawn.add(_NAMES[outcome.source], list(_points(samples, measure)))
    tree = drawn.render_tree()
    for parent in [*tree.iter()]:
        for script in parent.findall("script"):  # for tooltips, which a picture in a page does not have
            parent.remove(script)
    return tree


def _points(samples: Samples, measure: Measure) -> Iterable[tuple[float, float]]:
    """Medians of what lies between two points."""
    seconds, values = samples.of("second"), samples.of(measure.name)
    parts = min(_POINTS, len(samples)) or 1
    for times, some in zip(np.array_split(seconds, parts), np.array_split(values, parts), strict=True):
        if np.isfinite(some).any():
            yield round(float(np.mean(times)) / 60, 2), float(f"{np.nanmedian(some):.4g}")


def tables(runs: list[Run]) -> str:
    """What happened, and how each measure went, in Markdown."""
    names = [_NAMES[outcome.source] for outcome, _ in runs]
    happened = {
        "seconds, seed": [f"{o.seconds:,.0f}, {o.seed}" for o, _ in runs],
        "commits a second, asked for and reached": [f"{o.rate:,.0f}, {o.commits_a_second:,.0f}" for o, _ in runs],
        "commits, rows changed, changes of shape": [
            f"{o.commits:,}, {o.rows_changed:,}, {o.shapes_changed:,}" for o, _ in runs
        ],
        "kills and other faults": [", ".join(f"{kind} {n}" for kind, n in o.faults.items()) for o, _ in runs],
        "starts of the process": [str(o.starts) for o, _ in runs],
        "verifications under load, rows verified": [f"{o.verifications}, {o.rows_verified:,}" for o, _ in runs],
        "comparisons at rest, rows compared": [f"{o.comparisons}, {o.rows_compared:,}" for o, _ in runs],
        "differences": [str(len(o.differences)) for o, _ in runs],
        "resident memory, most at any moment": [f"{o.resident_mb_max:,.0f} MB" for o, _ in runs],
        "tables at the source, begin and end": [f"{o.source_mb_first:,.1f} MB, {o.source_mb_last:,.1f} MB" for o, _ in runs],
    }  # fmt: skip
    grown = [growths(samples) for _, samples in runs]
    slopes = {
        f"{measure.title}, {measure.unit}": [_cell(of_run[number]) for of_run in grown]
        for number, measure in enumerate(MEASURES)
    }
    return f"{_table(['', *names], happened)}\n{_table(['median, most; slope an hour', *names], slopes)}"


def _cell(growth: Growth) -> str:
    if not np.isfinite(growth.most):
        return "not known"
    return f"{figure(growth.median)}, {figure(growth.most)}; {slope(growth.trend)}"


def figure(value: float, sign: str = "") -> str:
    """A number for people, with what is significant of it."""
    return f"{value:{sign},.0f}" if abs(value) >= 100 else f"{value:{sign}.2g}"


def slope(trend: Trend | None) -> str:
    """A slope with its interval, for people."""
    if trend is None:
        return "too short for a slope"
    return f"{figure(trend.per_hour, '+')} ({figure(trend.low, '+')} to {figure(trend.high, '+')})"


def _table(head: list[str], rows: dict[str, list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write(folder: Path, root: Path) -> None:
    """Draw the chart and write the tables into the page, from what a folder has."""
    found = runs(folder)
    (root / _CHART).write_bytes(chart(found))
    page = root / _PAGE
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    picture = f"![What a run takes over time]({_CHART.name})"
    page.write_text(f"{before}{_BEGIN}\n{tables(found)}\n{picture}\n\n{_END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m integration.soak.page", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    write(parser.parse_args().folder, Path())
    return 0


if __name__ == "__main__":
    sys.exit(main())
