"""The cheapest cure first, one rung at a time, and what is cured by new learning alone."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import SpecError
from evergreen.monitoring.ladder import LADDER, climbed
from evergreen.spec import ModelSpec, parse_spec
from evergreen.types import Alarm, Cause, Remedy, WatchCheck, Window

END = datetime(2021, 6, 7, tzinfo=UTC)


def a_spec(task: str = "binary", **remedy: object) -> ModelSpec:
    data = {"domain": "d", "examples": "e", "event_time": "t", "labels": "l", "label": "y", "feature_service": "s"}
    return parse_spec({"model": {"name": "m", "task": task}, "data": data, "remedy": remedy})


def alarm(trigger: Cause = Cause.DECAY) -> Alarm:
    return Alarm(trigger=trigger, figure=1.0, rule="r", reason="because")


def asked(
    remedy: Remedy, weeks_ago: float, *, alarms: Sequence[Alarm] = (alarm(),), retrain: bool = True
) -> WatchCheck:
    end = END - timedelta(weeks=weeks_ago)
    window = Window(start=end - timedelta(days=7), end=end)
    return WatchCheck(model="m", version=1, window=window, alarms=tuple(alarms), retrain=retrain, remedy=remedy)


def rung(spec: ModelSpec, *history: WatchCheck, trigger: Cause = Cause.DECAY) -> Remedy:
    return climbed(spec, END, [alarm(trigger)], history)[0]


def test_without_a_word_in_the_spec_every_alarm_asks_for_a_retrain() -> None:
    assert rung(a_spec()) == Remedy.RETRAIN
    assert rung(a_spec(), asked(Remedy.RETRAIN, 1)) == Remedy.RETRAIN


def test_decay_climbs_a_rung_while_it_goes_on() -> None:
    spec = a_spec(first="recalibrate", last="search")
    seen = []
    history: list[WatchCheck] = []
    for week in range(5, 0, -1):
        remedy = rung(spec, *history)
        seen.append(remedy)
        history.insert(0, asked(remedy, weeks_ago=week * 0.5))

    assert seen == [Remedy.RECALIBRATE, Remedy.FINE_TUNE, Remedy.RETRAIN, Remedy.SEARCH, Remedy.SEARCH]


def test_a_rung_is_forgotten_after_a_while() -> None:
    spec = a_spec(first="recalibrate", climb_days=14)

    assert rung(spec, asked(Remedy.RECALIBRATE, 1)) == Remedy.FINE_TUNE
    assert rung(spec, asked(Remedy.RECALIBRATE, 3)) == Remedy.RECALIBRATE


@pytest.mark.parametrize("trigger", [Cause.AGE, Cause.DRIFT])
def test_what_only_new_learning_cures_goes_past_the_cheap_rungs(trigger: Cause) -> None:
    assert rung(a_spec(first="recalibrate"), trigger=trigger) == Remedy.RETRAIN


def test_a_routine_that_nothing_alarmed_for_is_no_try() -> None:
    spec = a_spec(first="recalibrate")

    assert rung(spec, asked(Remedy.FINE_TUNE, 1, alarms=())) == Remedy.RECALIBRATE
    assert rung(spec, asked(Remedy.FINE_TUNE, 1, retrain=False)) == Remedy.RECALIBRATE


def test_a_later_look_says_nothing_about_this_one() -> None:
    assert rung(a_spec(first="recalibrate"), asked(Remedy.FINE_TUNE, -1)) == Remedy.RECALIBRATE


@given(first=st.sampled_from(LADDER), tried=st.lists(st.sampled_from(LADDER), max_size=4))
def test_it_never_falls_below_the_first_rung_nor_leaves_the_ladder(first: Remedy, tried: list[Remedy]) -> None:
    history = [asked(remedy, weeks_ago=n + 1) for n, remedy in enumerate(tried)]

    found = rung(a_spec(first=first, last="search"), *history)

    assert LADDER.index(found) >= LADDER.index(first)


def test_what_cannot_cure_a_task_is_refused_in_its_file() -> None:
    with pytest.raises(SpecError, match="moves the scores of two classes"):
        a_spec("regression", routine="recalibrate")
    with pytest.raises(SpecError, match="no cheap remedy"):
        a_spec(routine="retrain")
