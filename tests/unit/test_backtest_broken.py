"""Data broken on purpose in a backtest: noticed at the first look that holds it, and nothing is learnt from it."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evergreen.errors import SpecError
from evergreen.monitoring.backtest.broken import Looks, broken, late, require_known, some_slots
from evergreen.monitoring.backtest.figures import results
from evergreen.monitoring.backtest.play import play
from evergreen.monitoring.backtest.policies import by_spec, every, never
from evergreen.monitoring.backtest.rehearsals import real
from evergreen.spec import InjectedFault
from evergreen.types import Remedy
from tests.unit.test_monitoring_backtest import FIRST, SPAN, a_spec, history, rows, seconds

INPUTS: dict[str, Any] = {"degrees": "numeric", "plan": "categorical"}
FAULTS = (
    InjectedFault(kind="unit", column="degrees", scale=5 / 9, offset=-160 / 9),
    InjectedFault(kind="missing", column="degrees", share=0.3),
    InjectedFault(kind="renamed", column="plan", category="b", becomes="B"),
    InjectedFault(kind="late", column="readings", hours=24),
)


def with_inputs() -> pd.DataFrame:
    """The rows of the other tests with a warm day, a cool night and two plans."""
    frame = rows()
    hour = (frame["event_timestamp"] - frame["event_timestamp"].dt.floor("D")) / pd.Timedelta(hours=1)
    number = pd.Series(range(len(frame)))
    return frame.assign(
        degrees=60.0 + 10 * (hour / 24) + number % 7, plan=(number % 3 == 0).map({True: "a", False: "b"})
    )


def hourly(as_of: datetime) -> dict[str, list[datetime]]:
    return {"readings": [as_of - timedelta(hours=n) for n in range(30 * 24, 0, -1)]}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
def test_a_fault_is_named_at_each_look_that_holds_it_and_holds_all_remedies_back(fault: InjectedFault) -> None:
    spec = a_spec(min_probe_gain=0.5)
    spec = spec.model_copy(update={"remedy": spec.remedy.model_copy(update={"routine": Remedy.FINE_TUNE})})
    looks = Looks(with_inputs(), INPUTS, hourly, fault, slots=frozenset({3, 4, 7}))

    played = play(history(), by_spec(spec, looks))
    figures = looks.figures(played)

    assert (figures.windows, figures.caught, figures.remedies) == (3, 3, 0)
    assert {slot for slot, _ in played.remedies} == {1, 2, 5, 6, 8, 9}
    assert [slot for slot, seen in looks.seen.items() if seen] == [3, 4, 7]


def test_unbroken_looks_see_nothing() -> None:
    looks = Looks(with_inputs(), INPUTS, hourly)

    play(history(), by_spec(a_spec(), looks))

    assert set(looks.seen) == set(range(1, 10))
    assert not any(looks.seen.values())


def test_a_week_in_which_nobody_asked_stops_nothing() -> None:
    frame, closed = with_inputs(), SPAN.slots[5]
    asked = frame["event_timestamp"]
    frame = frame[(asked < closed) | (asked >= SPAN.slots[6])].reset_index(drop=True)

    def scores(slot: int, tuned: tuple[int, ...], _end: int) -> NDArray[np.float64]:
        return np.asarray(1 / (1 + np.exp(-(frame["odds"].to_numpy() + 0.01 * max(slot, *tuned, 0)))))

    past, looks = real(frame, SPAN, scores), Looks(frame, INPUTS, hourly)
    spec = a_spec()
    spec = spec.model_copy(update={"remedy": spec.remedy.model_copy(update={"routine": Remedy.FINE_TUNE})})
    policies = {"never": never, "weekly": every(1), "file": by_spec(a_spec(), looks), "tuned": by_spec(spec)}
    found = results({name: (past, play(past, policy), seconds) for name, policy in policies.items()})

    assert looks.seen[6] == ()  # the week that is over then is the empty one
    assert all(np.isfinite(one.curve).all() and np.isfinite(one.gain_share) for one in found)
    assert {one.curve[5] for one in found} == {0.0}


def test_a_fault_changes_its_own_column_alone() -> None:
    window = with_inputs()[:300]
    for fault in FAULTS:
        moved = broken(window, fault, seed=1)
        same = [name for name in window if moved[name].equals(window[name])]
        assert set(window) - set(same) == ({fault.column} if fault.kind != "late" else set())
    assert late(hourly(FIRST), FAULTS[3], FIRST)["readings"][-1] == FIRST - timedelta(hours=24)


def test_looks_are_spread_over_the_play() -> None:
    assert sorted(some_slots(38)) == [1, 5, 9, 13, 17, 21, 25, 29, 33, 37]
    assert sorted(some_slots(4)) == [1, 2, 3]
    assert max(some_slots(len(SPAN.slots) - 1)) == 9


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
def test_a_fault_travels(fault: InjectedFault) -> None:
    assert InjectedFault.model_validate_json(fault.model_dump_json()) == fault


def test_what_cannot_be_broken_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="'wind' is no feature; known: degrees, plan"):
        require_known([InjectedFault(kind="missing", column="wind")], INPUTS, ["readings"])
    with pytest.raises(SpecError, match="'degrees' is no feature table; known: readings"):
        require_known([InjectedFault(kind="late", column="degrees")], INPUTS, ["readings"])
    for keys, told in (
        ({"kind": "renamed", "category": "b"}, "needs category and becomes"),
        ({"kind": "unit"}, "nothing is changed"),
        ({"kind": "missing", "hours": 3}, "hours: no use to kind 'missing'"),
    ):
        with pytest.raises(ValueError, match=told):
            InjectedFault.model_validate({"column": "x", **keys})
