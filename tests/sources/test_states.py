"""The state of a source in a checkpoint. Versions of cdc read each other's."""

from __future__ import annotations

import json

import pytest

from cdc.errors import CheckpointUnreadable
from cdc.model.selection import Selection
from cdc.options import AfterShape, KeptOptions
from cdc.sources import mysql, postgres
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.state import SourceState as MySqlState
from cdc.sources.postgres.state import SourceState as PostgresState

OPTIONS = KeptOptions(Selection(("a.*",), ("a.x",), "a"), True, True, AfterShape.FULL, 9.0)
# As versions up to now have written them.
KEPT = {
    "selection": {"include": ["a.*"], "exclude": ["a.x"], "default_schema": "a"},
    "include_keyless": True,
    "holds_tables": True,
    "after_shape": "full",
    "max_rate": 9.0,
}
POSTGRESQL = {"version": 1, "source": "postgresql", "pipeline": "p", "system": "7", "database": "5", "timeline": 1}
MYSQL = {
    "version": 1,
    "source": "mysql",
    "pipeline": "p",
    "flavor": "mysql",
    "server": "u",
    "server_id": 9,
    "tables": [],
}
STATES = [
    (postgres, POSTGRESQL | {"slot": "cdc_p"}, PostgresState("p", "7", "5", 1, "cdc_p")),
    (mysql, MYSQL | {"place": {"file": "b.1", "base": 0}}, MySqlState("p", "mysql", "u", 9, LogPlace("b.1", 0))),
]


@pytest.mark.parametrize(("source", "old", "state"), STATES)
def test_the_options_of_the_last_run_are_stored_as_told(source, old, state) -> None:  # type: ignore[no-untyped-def]
    assert source.kept_options(json.dumps(old | {"told": KEPT})) == OPTIONS
    state.options = OPTIONS
    assert json.loads(state.dump())["told"] == KEPT
    assert type(state).load(state.dump()) == state


@pytest.mark.parametrize(("source", "old", "state"), STATES)
def test_a_state_without_them_is_read(source, old, state) -> None:  # type: ignore[no-untyped-def]
    assert source.kept_options(json.dumps(old)) is None
    with pytest.raises(CheckpointUnreadable):
        type(state).load(json.dumps(old | {"options": KEPT}))
