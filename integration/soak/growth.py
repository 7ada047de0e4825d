"""What each measure of a run may do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from integration.memory import budget_mb
from integration.soak.samples import Samples
from integration.soak.slopes import Trend, trend

_WARM_UP = 0.25  # of the time of a process: caches and what the allocator keeps fill up


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that must not grow.

    Attributes:
        name: as `Samples.of` has it.
        title, unit: for people.
        allowed: growth over the judged time that is no finding, beside what chance explains.
        most: what none of its values may exceed; None where nothing bounds it.
    """

    name: str
    title: str
    unit: str
    allowed: float
    most: float | None = None


# Between two checkpoints of DuckDB, its log has up to 64 MB, and memory what that says: a sawtooth (docs/operating.md). A checkpoint
# writes what was in the log before what was there is free, and the next one gives that back: up to two logs beside 10 MB of rows.
# What is not in its account has its queues of blocks that are gone, up to 35 MB in the first hours.
MEASURES = (
    Measure("resident_mb", "Resident memory", "MB", 60, most=budget_mb()),
    Measure("duckdb_mb", "of it DuckDB's, by its own account", "MB", 40, most=256),
    Measure("beyond_mb", "of it not DuckDB's", "MB", 40),
    Measure("file_mb", "Target file", "MB", 64, most=2 * 64 + 10),
    Measure("wal_mb", "DuckDB's own log beside it", "MB", 32, most=64 + 16),
    Measure("retained_mb", "Log kept by the source, or not applied", "MB", 32),
    Measure("lag_mb", "Log not applied", "MB", 4),
    Measure("lag_seconds", "Lag", "s", 1),
    Measure("cpu_ms", "CPU per commit", "ms", 0.2),
)


@dataclass(frozen=True, slots=True)
class Growth:
    """What one measure did in a run: `trend` is None where there was too little to see."""

    measure: Measure
    median: float
    most: float
    trend: Trend | None

    @property
    def finding(self) -> str | None:
        """What is wrong; None if nothing is."""
        measure = self.measure
        if measure.most is not None and self.most > measure.most:
            return f"{measure.title} was {self.most:,.0f} {measure.unit}, above {measure.most:,.0f}"
        if self.trend is not None and self.trend.is_more_than(measure.allowed):
            return f"{measure.title} grew by {self.trend.growth:,.2f} {measure.unit} in {self.trend.hours:.1f} hours"
        return None


def growths(samples: Samples) -> list[Growth]:
    """Of all measures, in the longest life of a process: slopes without its begin, and the most of the whole run."""
    judged = samples.longest_life().warm(_WARM_UP)
    return [_growth(measure, samples, judged) for measure in MEASURES]


def _growth(measure: Measure, samples: Samples, judged: Samples) -> Growth:
    values, all_values = judged.of(measure.name), samples.of(measure.name)
    return Growth(
        measure,
        float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan,
        float(np.nanmax(all_values)) if np.isfinite(all_values).any() else np.nan,
        trend(judged.of("second"), values),
    )
