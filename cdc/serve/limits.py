"""What one reader, and all of them together, may take."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1 << 20
ROWS = 1_000_000
CONNECTIONS = 64
TRANSACTION = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """What readers may take.

    Attributes:
        memory: bytes of buffers that DuckDB has for all queries together.
        seconds: that DuckDB works on one query.
        rows: of one answer.
        connections: at a time, of each protocol.
        transaction: seconds for which a reader may have one edition: its file stays on the disk meanwhile.
    """

    memory: int = 512 * MEGABYTE
    seconds: float = 60.0
    rows: int = ROWS
    connections: int = CONNECTIONS
    transaction: float = TRANSACTION

    @property
    def resident(self) -> int:
        """Bytes of memory at which the process ends.

        Beyond DuckDB's own limit there are Python, Arrow, answers that are on their way, and an older edition that
        somebody still reads.
        """
        return 3 * self.memory // 2 + 768 * MEGABYTE

    @property
    def reserved(self) -> int:
        """Bytes that the process may ask the system for, of which Arrow alone reserves a GB that it does not use."""
        return 2 * self.resident + 4096 * MEGABYTE
