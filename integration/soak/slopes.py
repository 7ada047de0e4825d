"""Whether a measure grows, in a way that neither peaks nor a sawtooth mislead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCKS = 12
_HOUR = 3600.0
_NORMAL_95 = 1.96  # of the normal distribution: 95 % lie between this and its opposite


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope per hour with the ends of its interval of 95 % confidence, and the hours that it was seen over."""

    per_hour: float
    low: float
    high: float
    hours: float

    @property
    def growth(self) -> float:
        """Over those hours."""
        return self.per_hour * self.hours

    def is_more_than(self, allowed: float) -> bool:
        """Whether it surely grows, and by more than that over those hours."""
        return self.low > 0 and self.growth > allowed


def trend(seconds: NDArray[np.float64], values: NDArray[np.float64]) -> Trend | None:
    """The slope that Theil and Sen have: the median of the slopes between all pairs of points. None for too few samples.

    The points are medians of twelve stretches of time. Samples that follow each other are alike, and an interval from all
    of them would be far too narrow; and what rises and falls within a stretch is no slope.
    The interval is Sen's, from the variance of Kendall's rank correlation (Sen 1968, section 3).
    """
    known = np.isfinite(values)
    seconds, values = seconds[known], values[known]
    if len(values) < 2 * _BLOCKS:
        return None
    times = np.array([np.mean(part) for part in np.array_split(seconds, _BLOCKS)])
    medians = np.array([np.median(part) for part in np.array_split(values, _BLOCKS)])
    first, second = np.triu_indices(_BLOCKS, 1)
    slopes = np.sort((medians[second] - medians[first]) / (times[second] - times[first])) * _HOUR
    spread = _NORMAL_95 * np.sqrt(_BLOCKS * (_BLOCKS - 1) * (2 * _BLOCKS + 5) / 18)
    low = int((len(slopes) - spread) / 2)
    ends = float(slopes[low]), float(slopes[-1 - low])
    return Trend(float(np.median(slopes)), *ends, float(seconds[-1] - seconds[0]) / _HOUR)
