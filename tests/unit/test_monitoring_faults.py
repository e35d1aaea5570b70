"""Broken data is told from a world that changed, by column and hour."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import DataError
from evergreen.monitoring.faults import find_faults, late_feeds
from evergreen.monitoring.sketch import Kind
from evergreen.types import Fault

INPUTS: dict[str, Kind] = {"warmth": "numeric", "rate": "numeric", "airline": "categorical"}
FIRST = pd.Timestamp("2021-03-01", tz="UTC")
WEEK = pd.Timedelta(days=7)


def hours(days: int, *, first: pd.Timestamp = FIRST, seed: int = 0, rows_an_hour: int = 10) -> pd.DataFrame:
    """Weather that goes up and down over days, a noisy rate that is missing now and then, three airlines."""
    random = np.random.default_rng(seed + first.dayofyear)
    count = days * 24 * rows_an_hour
    at = np.arange(count) / rows_an_hour
    clock = at + (first - FIRST) / pd.Timedelta(hours=1)
    return pd.DataFrame(
        {
            "event_timestamp": first + pd.to_timedelta(at, unit="h"),
            "warmth": 45 + 12 * np.sin(clock / 24) + 5 * np.sin(clock * np.pi / 12) + random.normal(size=count),
            "rate": np.where(random.random(count) < 0.1, np.nan, random.gamma(2.0, size=count)),
            "airline": random.choice(["AA", "BB", "CC"], p=[0.6, 0.3, 0.1], size=count),
        }
    )


REFERENCE = hours(42)
RECENT = hours(7, first=FIRST + 6 * WEEK)
CURRENT = hours(7, first=FIRST + 7 * WEEK)


def faults_of(change: Callable[[pd.DataFrame], pd.DataFrame]) -> tuple[Fault, ...]:
    return find_faults(REFERENCE, RECENT, change(CURRENT.copy()), INPUTS)


def from_hour(
    hour: int, column: str, new: Callable[[pd.Series], pd.Series | float]
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        later = frame["event_timestamp"] >= CURRENT["event_timestamp"].min() + pd.Timedelta(hours=hour)
        frame.loc[later, column] = new(frame.loc[later, column])
        return frame

    return change


def at_hour(hour: int) -> datetime:
    return (FIRST + 7 * WEEK + pd.Timedelta(hours=hour)).to_pydatetime()


def test_usual_hours_have_no_fault() -> None:
    assert faults_of(lambda frame: frame) == ()


@pytest.mark.parametrize("hour", [0, 50, 150])
def test_degrees_in_another_unit_are_found_at_the_hour_they_begin(hour: int) -> None:
    [fault] = faults_of(from_hour(hour, "warmth", lambda f: (f - 32) * 5 / 9))

    assert (fault.kind, fault.column) == ("unit", "warmth")
    assert abs(fault.since - at_hour(hour)) <= timedelta(hours=1)


def test_degrees_that_hours_and_days_have_jumped_as_far_before_are_found_between_weeks() -> None:
    def stormy(frame: pd.DataFrame) -> pd.DataFrame:
        """One morning in a reference of weeks fell by as much as the conversion falls."""
        morning = frame["event_timestamp"].dt.floor("D") == FIRST + 3 * WEEK
        return frame.assign(warmth=frame["warmth"].where(~morning, frame["warmth"] - 45))

    celsius = CURRENT.assign(warmth=(CURRENT["warmth"] - 32) * 5 / 9)
    [fault] = find_faults(stormy(REFERENCE), RECENT, celsius, INPUTS)

    assert (fault.kind, fault.column) == ("unit", "warmth")
    assert "over 168 hours" in fault.reason


def test_a_calm_week_after_a_stormy_one_is_no_other_unit() -> None:
    """Delays fell from 20.4 minutes to -4.9, near where Celsius would put them, and deviate by more than that."""

    def delayed(frame: pd.DataFrame, mean: float, deviation: float) -> pd.DataFrame:
        noise = np.random.default_rng(3).normal(size=len(frame))
        return frame.assign(warmth=mean + deviation * (noise - noise.mean()) / noise.std())

    found = find_faults(
        delayed(REFERENCE, 5.0, 45.0), delayed(RECENT, 20.4, 45.0), delayed(CURRENT, -4.9, 26.0), INPUTS
    )

    assert found == ()


def test_a_unit_that_leaves_the_range_is_found() -> None:
    found = faults_of(from_hour(20, "warmth", lambda f: f * 100))

    assert {(fault.kind, fault.since) for fault in found} == {("unit", at_hour(20))}


def test_a_jump_that_fits_a_conversion_is_named() -> None:
    reference, recent, current = (
        frame.assign(warmth=100 + frame["rate"] * 10) for frame in (REFERENCE, RECENT, CURRENT)
    )
    current["warmth"] *= 1.609344

    found = find_faults(reference, recent, current, {"warmth": "numeric"})

    assert [fault.kind for fault in found] == ["unit"]


def test_a_missing_share_that_jumps_is_found_and_the_usual_one_is_not() -> None:
    lost = np.random.default_rng(5).random(len(CURRENT)) < 0.2
    [fault] = faults_of(lambda frame: frame.assign(rate=frame["rate"].mask(lost)))

    assert (fault.kind, fault.column) == ("missing", "rate")
    assert 0.2 < fault.figure < 0.35


def test_a_column_that_ends_is_found_within_hours() -> None:
    [fault] = faults_of(from_hour(162, "rate", lambda _: np.nan))

    assert (fault.kind, fault.since) == ("missing", at_hour(162))


def test_a_renamed_category_is_found_and_its_new_name_told() -> None:
    [fault] = faults_of(from_hour(24, "airline", lambda names: names.replace("BB", "B2")))

    assert (fault.kind, fault.column) == ("vanished", "airline")
    assert abs(fault.since - at_hour(24)) <= timedelta(hours=2)
    assert "'B2' came instead" in fault.reason


def test_a_common_category_that_stays_away_is_found_and_a_rare_one_is_the_season() -> None:
    def rarely(frame: pd.DataFrame) -> pd.DataFrame:
        place = np.arange(len(frame)) % 40 == 0
        return frame.assign(airline=frame["airline"].mask(place, "RARE"))

    def without(frame: pd.DataFrame, airline: str) -> pd.DataFrame:
        return frame.assign(airline=frame["airline"].replace(airline, "AA"))

    reference, recent = rarely(REFERENCE), rarely(RECENT)
    common = find_faults(reference, recent, without(rarely(CURRENT), "BB"), INPUTS)
    rare = find_faults(reference, recent, without(rarely(CURRENT), "RARE"), INPUTS)

    assert [(fault.kind, fault.column) for fault in common] == [("vanished", "airline")]
    assert rare == ()


def test_a_newcomer_alone_is_no_fault() -> None:
    rare = np.random.default_rng(6).random(len(CURRENT)) < 0.03

    assert faults_of(lambda frame: frame.assign(airline=frame["airline"].mask(rare, "DD"))) == ()


def test_a_constant_is_found() -> None:
    [fault] = [f for f in faults_of(from_hour(60, "warmth", lambda _: 50.0)) if f.kind == "constant"]

    assert (fault.column, fault.since) == ("warmth", at_hour(60))


def test_a_stale_view_is_found_by_its_name() -> None:
    def stale(frame: pd.DataFrame) -> pd.DataFrame:
        late = frame["event_timestamp"] >= at_hour(100)
        return frame.assign(stale=pd.Series([("weather",) if is_late else () for is_late in late], dtype=object))

    [fault] = faults_of(stale)

    assert (fault.kind, fault.column, fault.since) == ("stale", "weather", at_hour(100))


def test_a_view_that_some_rows_never_have_is_no_fault_until_it_lacks_in_more_of_them() -> None:
    def lacking(frame: pd.DataFrame, share: float) -> pd.DataFrame:
        absent = np.random.default_rng(3).random(len(frame)) < share
        return frame.assign(stale=pd.Series([["tail"] if one else [] for one in absent], dtype=object))

    usual = find_faults(REFERENCE, lacking(RECENT, 0.1), lacking(CURRENT, 0.1), INPUTS)
    more = find_faults(REFERENCE, lacking(RECENT, 0.1), lacking(CURRENT, 0.4), INPUTS)

    assert usual == ()
    assert [(fault.kind, fault.column) for fault in more] == [("stale", "tail")]


def test_in_the_first_window_ever_nobody_can_say_what_is_usually_stale() -> None:
    current = CURRENT.assign(stale=pd.Series([["tail"]] * len(CURRENT), dtype=object))

    assert find_faults(REFERENCE, RECENT.iloc[:0].assign(stale=None), current, INPUTS) == ()


def test_an_outage_the_reference_had_twice_is_usual() -> None:
    reference = REFERENCE.copy()
    for day in (10, 30):
        out = (reference["event_timestamp"] >= FIRST + pd.Timedelta(days=day)) & (
            reference["event_timestamp"] < FIRST + pd.Timedelta(days=day + 1)
        )
        reference.loc[out, "rate"] = np.nan
    current = from_hour(30, "rate", lambda _: np.nan)(CURRENT.copy())
    current = current[current["event_timestamp"] < at_hour(42)]

    assert find_faults(reference, RECENT, current, INPUTS) == ()


def test_a_feed_is_late_when_it_is_silent_for_longer_than_ever() -> None:
    hourly = [FIRST.to_pydatetime() + timedelta(hours=n) for n in range(200)]
    daily = hourly[::24]
    as_of = hourly[-1] + timedelta(hours=24)

    [fault] = late_feeds({"weather": hourly, "rates": daily}, as_of)

    assert (fault.kind, fault.column) == ("late", "weather")
    assert fault.since == hourly[-1] + timedelta(hours=1)
    assert late_feeds({"weather": hourly}, hourly[-1] + timedelta(hours=2)) == ()


def test_what_became_known_later_does_not_excuse_a_silence() -> None:
    hourly = [datetime(2021, 3, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(200)]

    [fault] = late_feeds({"weather": [*hourly, hourly[-1] + timedelta(hours=48)]}, hourly[-1] + timedelta(hours=30))

    assert fault.kind == "late"


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(DataError, match="window of a check for data faults has no rows"):
        find_faults(REFERENCE, RECENT, CURRENT.iloc[:0], INPUTS)
