"""Which changes of a pipeline's condition become alerts: each once, and nothing that lasts for a moment."""

from __future__ import annotations

import pytest

from cdc.service.alerts import Alert, Alerts, Condition, Event
from cdc.service.notify import Notifier

WELL = Condition()
DOWN = Condition(problems=("The source cannot be asked.",))
HELD = Condition(held={"public.orders": "A value has no place."})
BOTH_HELD = Condition(held={"public.orders": "A value has no place.", "public.items": "It has no key."})
DIFFERS = Condition(different={"public.orders": "12 rows"})
NEAR = Condition(slot_lost_in=7_200.0)
NEARLY_NEAR = Condition(slot_lost_in=100_000.0)
FAR = Condition(slot_lost_in=1_000_000.0)


def sent_during(*phases: tuple[Condition, int]) -> list[tuple[int, Event]]:
    """What is sent, and at which second, while each condition lasts for so many seconds; there is a look every 5 s."""
    alerts, now, sent = Alerts("shop"), 0, []
    for condition, seconds in phases:
        for _ in range(0, seconds, 5):
            sent += [(now, alert.event) for alert in alerts.look(condition, float(now))]
            now += 5
    return sent


@pytest.mark.parametrize(
    ("expected", "phases"),
    [
        pytest.param([], [(WELL, 600)], id="all is well"),
        pytest.param([(15, "unhealthy")], [(DOWN, 3600)], id="it is said once, however long it lasts"),
        pytest.param([], [(DOWN, 15), (WELL, 600)], id="a moment is nothing"),
        pytest.param([], [(DOWN, 10), (WELL, 5)] * 50, id="nor are fifty moments"),
        pytest.param(
            [(15, "unhealthy"), (90, "recovered")], [(DOWN, 60), (WELL, 600)], id="recovered, after half a minute of it"
        ),
        pytest.param(
            [(15, "unhealthy"), (90 + 20 * 40, "recovered")],
            [(DOWN, 60), *[(WELL, 20), (DOWN, 20)] * 20, (WELL, 600)],
            id="what flaps is unhealthy once and recovers once",
        ),
        pytest.param(
            [(15, "unhealthy"), (90, "recovered"), (675, "unhealthy"), (750, "recovered")],
            [(DOWN, 60), (WELL, 600), (DOWN, 60), (WELL, 600)],
            id="each outage is one",
        ),
        pytest.param([(15, "held")], [(HELD, 600)], id="a table that is held is no second alert of poor health"),
        pytest.param([(15, "held"), (75, "held")], [(HELD, 60), (BOTH_HELD, 600)], id="another table is another alert"),
        pytest.param([(15, "held"), (90, "recovered")], [(HELD, 60), (WELL, 600)], id="held, and mended"),
        pytest.param([(15, "unhealthy"), (75, "held")], [(DOWN, 60), (HELD, 600)], id="it gets no better by another"),
        pytest.param([(0, "differs")], [(DIFFERS, 7200)], id="a verification that finds the same again says nothing"),
        pytest.param(
            [(0, "differs"), (90, "recovered"), (180, "differs")],
            [(DIFFERS, 60), (WELL, 120), (DIFFERS, 60)],
            id="a difference that was mended and is found again",
        ),
        pytest.param([(120, "slot")], [(NEAR, 3600)], id="a slot that will be lost within a day"),
        pytest.param([], [(FAR, 600), (NEARLY_NEAR, 600)], id="a slot that will be lost later than that"),
        pytest.param([], [(NEAR, 90), (FAR, 600)], id="a forecast that is withdrawn"),
        pytest.param(
            [(120, "slot")], [(NEAR, 600), (NEARLY_NEAR, 600), (NEAR, 600)], id="a forecast near the limit is one alert"
        ),
        pytest.param(
            [(120, "slot"), (1320, "slot")], [(NEAR, 600), (FAR, 600), (NEAR, 600)], id="a slot in danger again"
        ),
    ],
)
def test_an_alert_is_a_transition(expected: list[tuple[int, str]], phases: list[tuple[Condition, int]]) -> None:
    """One message per transition; E-09: a night without a server is no reason to fill an inbox."""
    assert expected == sent_during(*phases)


def one(condition: Condition) -> Alert:
    alerts = Alerts("shop")
    (alert,) = [alert for now in range(0, 150, 5) for alert in alerts.look(condition, float(now))]
    return alert


def test_an_alert_says_what_happened_and_to_which_table() -> None:
    """A person who gets only the message knows where to look."""
    held, differs, slot = one(BOTH_HELD), one(DIFFERS), one(NEAR)

    assert held.tables == ["public.items", "public.orders"]
    assert "public.items is held, and its changes are skipped: It has no key." in held.message
    assert "public.orders (12 rows)" in differs.message
    assert "lost in 2 hours" in slot.message
    assert one(DOWN).message == "The source cannot be asked."


def test_a_message_of_thousands_of_tables_stays_short() -> None:
    """A schema of which everything is held is one message that can be read."""
    many = one(Condition(held={f"public.t{number:04}": "It has no key." for number in range(5000)}))

    assert "and 4,990 more" in many.message
    assert len(many.message) < 1_000
    assert len(many.tables) == 5_000


def test_a_condition_is_read_from_a_report() -> None:
    """What is said of tables is not repeated among the problems."""
    report = {
        "problems": ["It is 900 s behind.", "Tables are held."],
        "problems_of_tables": ["Tables are held."],
        "tables": {
            "public.a": {"state": "held", "reason": "No key."},
            "public.b": {"state": "following", "reason": ""},
        },
        "verification": {"different": {"public.b": 3}, "shapes": {"public.c": ["a column"]}},
        "forecast": {"slot_seconds_left": 60.0},
        "slot": {"retained_bytes": 300, "safe_bytes": 700},
    }

    assert Condition.of(report) == Condition(
        ("It is 900 s behind.",), {"public.a": "No key."}, {"public.b": "3 rows", "public.c": "its shape"}, 60.0
    )


@pytest.mark.parametrize(
    ("slot", "lost_in"),
    [
        ({"retained_bytes": 300, "safe_bytes": 700}, 60.0),
        ({"retained_bytes": 16, "safe_bytes": 984}, None),  # a file more than a moment ago
        ({"retained_bytes": 1000, "safe_bytes": -50}, 60.0),  # beyond the limit, and not removed yet
        ({"retained_bytes": 1000, "safe_bytes": None}, None),  # without a limit
        ({"exists": False}, None),
        (None, None),  # MySQL
    ],
)
def test_a_forecast_counts_once_a_good_part_of_the_room_is_used(
    slot: dict[str, int | None] | None, lost_in: float | None
) -> None:
    """A source removes its log file by file, so that what is left falls now and then without any danger."""
    report = {"problems": [], "problems_of_tables": [], "tables": {}, "verification": None}
    report |= {"forecast": {"slot_seconds_left": 60.0}, **({"slot": slot} if slot is not None else {})}

    assert Condition.of(report).slot_lost_in == lost_in


def test_a_receiver_that_raises_gets_the_next_alert(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a service's code or a command does, its thread goes on; what the error says may be a secret."""

    class Odd:
        name = "odd"

        def __init__(self) -> None:
            self.sent: list[Alert] = []

        def send(self, alert: Alert) -> str | None:
            if alert.message == "first":
                raise ValueError("https://user:secret@host")
            self.sent.append(alert)
            return None

    odd = Odd()
    notifier = Notifier([odd])
    for message in ("first", "second"):
        notifier.send(Alert(Event.UNHEALTHY, "shop", message))
    with caplog.at_level("WARNING", "cdc"):
        notifier.close()
    assert [alert.message for alert in odd.sent] == ["second"]
    assert "secret" not in caplog.text
