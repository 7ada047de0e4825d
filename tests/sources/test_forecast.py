"""Whether the log that a slot may keep lasts until a copy is done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.sources.postgres.forecast import Forecast


@given(
    rows=st.integers(1000, 10**9), rate=st.integers(1, 10**6), writes=st.integers(1, 10**8), safe=st.integers(1, 10**12)
)
def test_it_warns_exactly_if_the_log_will_not_last(rows: int, rate: int, writes: int, safe: int) -> None:
    """C-06: steady copying, steady writing of log: a warning, once, if and only if the one outlasts the other."""
    forecast = Forecast(rows, 0.0)
    seen: list[tuple[int, str]] = []
    for now in range(10, 200, 10):
        said = forecast.look(float(now), rate * now, safe - writes * now)
        if said:
            seen.append((now, said))
    assert len(seen) <= 1
    will_last = safe / writes >= rows / rate
    if seen:
        assert not will_last or abs(safe / writes - rows / rate) < 1
        assert "max_slot_wal_keep_size" in seen[0][1]
    elif rows / rate > 200:
        assert will_last or abs(safe / writes - rows / rate) < 1


def test_without_a_limit_there_is_nothing_to_warn_of() -> None:
    """C-06."""
    forecast = Forecast(10**9, 0.0)
    assert [forecast.look(float(now), now, None) for now in range(0, 1000, 10)] == [None] * 100
