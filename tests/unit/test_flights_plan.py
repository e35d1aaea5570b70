"""The on-demand view's function: clocks, holidays, blocks and slack."""

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.flights.plan import days_from_holiday, holidays, plan

NOON = datetime(2013, 7, 10, 16, 30, tzinfo=UTC)


def a_request(**changed: Any) -> dict[str, list[Any]]:
    one = {
        "scheduled_departure": NOON,
        "scheduled_arrival": NOON + timedelta(hours=3),
        "distance": 900.0,
        "leg_ready_at": (NOON - timedelta(hours=5)).timestamp(),
        "leg_block_minutes": 120.0,
        "aircraft_year": 2003.0,
    } | changed
    return {name: [value] for name, value in one.items()}


def test_clocks_are_those_of_new_york_on_both_sides_of_a_change_of_clocks() -> None:
    before = plan(a_request(scheduled_departure=datetime(2013, 3, 10, 6, 30, tzinfo=UTC)))
    after = plan(a_request(scheduled_departure=datetime(2013, 3, 10, 7, 30, tzinfo=UTC)))

    assert before["local_hour"] == [1.5]
    assert after["local_hour"] == [3.5]


def test_the_day_of_the_week_is_the_local_one() -> None:
    assert plan(a_request(scheduled_departure=datetime(2013, 7, 8, 2, 0, tzinfo=UTC)))["day_of_week"] == [6.0]


def test_slack_leaves_room_for_the_way_back() -> None:
    answer = plan(a_request())

    assert answer["hours_since_leg"] == [5.0]
    assert answer["leg_slack_minutes"] == [5 * 60 - 120.0]


@pytest.mark.parametrize("missing", [None, math.nan])
def test_an_unknown_leg_or_year_gives_nothing_rather_than_a_number(missing: float | None) -> None:
    answer = plan(a_request(leg_ready_at=missing, leg_block_minutes=missing, aircraft_year=missing))

    assert answer["hours_since_leg"] == answer["leg_slack_minutes"] == answer["aircraft_age_years"] == [None]
    assert answer["block_minutes"] == [180.0]


def test_the_federal_holidays_of_2013_are_known() -> None:
    assert [day.isoformat() for day in holidays(2013)[1:-1]] == [
        "2013-01-01", "2013-01-21", "2013-02-18", "2013-05-27", "2013-07-04",
        "2013-09-02", "2013-10-14", "2013-11-11", "2013-11-28", "2013-12-25",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("day", "distance"),
    [
        (date(2013, 11, 27), -1.0),
        (date(2013, 11, 28), 0.0),
        (date(2013, 12, 1), 3.0),
        (date(2013, 12, 31), -1.0),
        (date(2014, 1, 1), 0.0),
        (date(2013, 8, 1), 10.0),
    ],
)
def test_the_nearest_holiday_is_counted_in_days_and_signed(day: date, distance: float) -> None:
    assert days_from_holiday(day) == distance


@given(st.dates(date(2000, 1, 1), date(2040, 12, 31)))
def test_the_distance_to_a_holiday_is_that_of_the_nearest_one_in_any_year(day: date) -> None:
    around = [holiday for year in (day.year - 1, day.year, day.year + 1) for holiday in holidays(year)]

    assert abs(days_from_holiday(day)) == min(10, min(abs((day - holiday).days) for holiday in around))
