"""The targets, and the inputs that the repository keeps for each."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
_MYSQL, _POSTGRES = "cdc.sources.mysql", "cdc.sources.postgres"
# By target, the modules whose branches guide the search.
TRACED = {
    "binlog": tuple(f"{_MYSQL}.{name}" for name in "binlog batches rows tablemap transactions values temporal".split()),
    "codecs": ("cdc.typed.codecs",),
    "copytext": (f"{_POSTGRES}.copytext", "cdc.sources.lockstep"),
    "ddl": (f"{_MYSQL}.ddl", f"{_MYSQL}.alter", f"{_MYSQL}.words", f"{_MYSQL}.evolution", f"{_MYSQL}.types"),
    "dsns": (f"{_MYSQL}.connection", f"{_POSTGRES}.connection", "cdc.connectors"),
    "framing": (f"{_MYSQL}.framing", f"{_MYSQL}.transactions"),
    "gtids": (f"{_MYSQL}.gtid", f"{_MYSQL}.transactions", f"{_MYSQL}.position"),
    "jsonb": (f"{_MYSQL}.jsonb", f"{_MYSQL}.documents"),
    "patterns": ("cdc.model.selection", f"{_POSTGRES}.position"),
    "pgoutput": (f"{_POSTGRES}.pgoutput", "cdc.sources.lockstep"),
    "records": ("cdc.journal.record", "cdc.model.records"),
    "resultset": (f"{_MYSQL}.resultset", f"{_MYSQL}.temporal", f"{_MYSQL}.values", f"{_MYSQL}.select"),
    "shapes": (f"{_POSTGRES}.evolution", f"{_POSTGRES}.types"),
    "states": ("cdc.model", f"{_MYSQL}.state", f"{_POSTGRES}.state"),
}
TARGETS = tuple(TRACED)
LONGEST = 4096  # bytes of an input


def inputs(target: str) -> list[Path]:
    """The corpus of a target, in a fixed order."""
    return sorted((CORPUS / target).glob("*"))
