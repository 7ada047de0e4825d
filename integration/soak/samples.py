"""What a long run looks at every few seconds, and the file that it is kept in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

_FEW = 100  # commits: with fewer between two looks, the process does other things beside them


@dataclass(frozen=True, slots=True)
class Sample:
    """One look, at a second since the begin.

    Attributes:
        second: since the run began.
        start: how many processes there were before; each has a memory of its own.
        age: of the process, in seconds.
        resident_mb: of the process; of it `duckdb_mb` are DuckDB's by its own account.
        file_mb, wal_mb: of the target, and of DuckDB's own log beside it.
        retained_mb: log that the source keeps for the pipeline; where it keeps none, what has not been applied.
        cpu_seconds, commits: of the process so far.
        lag_seconds, lag_mb: as status has them.
    """

    second: float
    start: int
    age: float
    resident_mb: float
    duckdb_mb: float | None
    file_mb: float
    wal_mb: float
    retained_mb: float | None
    cpu_seconds: float
    commits: int | None
    lag_seconds: float | None
    lag_mb: float | None


class Samples:
    """The looks of a run, as arrays: NaN where something is not known."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    @classmethod
    def read(cls, file: Path) -> Samples:
        """Those of a file, of which the last line may be cut off."""
        lines = file.read_bytes().splitlines(keepends=True)
        return cls(Sample(**orjson.loads(line)) for line in lines if line.endswith(b"\n"))

    def __len__(self) -> int:
        return len(self._samples)

    def of(self, name: str) -> NDArray[np.float64]:
        """One measure by its name; `cpu_ms` is what a commit has taken since the look before, and `beyond_mb` the memory
        that is not DuckDB's."""
        if name == "cpu_ms":
            return self._cpu_ms()
        if name == "beyond_mb":
            return self.of("resident_mb") - self.of("duckdb_mb")
        values = (getattr(sample, name) for sample in self._samples)
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    def _cpu_ms(self) -> NDArray[np.float64]:
        cpu, commits, starts = self.of("cpu_seconds"), self.of("commits"), self.of("start")
        taken, made = np.diff(cpu, prepend=np.nan), np.diff(commits, prepend=np.nan)
        is_known = (np.diff(starts, prepend=np.nan) == 0) & (made >= _FEW)
        return np.where(is_known, 1000 * taken / np.where(is_known, made, 1), np.nan)

    def longest_life(self) -> Samples:
        """Those of the process that was looked at most often."""
        starts = [sample.start for sample in self._samples]
        longest = max(starts, key=starts.count, default=0)
        return Samples(sample for sample in self._samples if sample.start == longest)

    def warm(self, share: float) -> Samples:
        """All but the first ones: such a share of the time."""
        begin, end = (self._samples[0].second, self._samples[-1].second) if self._samples else (0.0, 0.0)
        return Samples(sample for sample in self._samples if sample.second >= begin + share * (end - begin))


def line(sample: Sample) -> bytes:
    """As a line of JSON."""
    return orjson.dumps(asdict(sample), option=orjson.OPT_APPEND_NEWLINE)
