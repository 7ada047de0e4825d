"""Storage engines: which have snapshots, and the changes of which come in the log."""

from __future__ import annotations

TRANSACTIONAL = frozenset({"innodb", "rocksdb", "tokudb", "ndbcluster"})
# Their rows lie in the table itself, and whatever changes them is logged. Others show rows that are elsewhere
# (MRG_MyISAM, FEDERATED, CONNECT, SPIDER, S3), keep none (BLACKHOLE), or log in ways of their own (ColumnStore): M18.
LOGGED = TRANSACTIONAL | {"myisam", "aria", "memory", "csv", "archive"}


def engine_trouble(engine: str) -> str | None:
    """Why a table of an engine (in lower case) cannot be followed, if it cannot."""
    if engine in LOGGED:
        return None
    return f"Its engine ({engine or 'none'}) is not one whose rows are its own and change only as the log says."
