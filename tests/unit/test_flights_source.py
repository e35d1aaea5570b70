"""Clock times of three zones made into UTC, and when each message was known."""

from typing import Any

import pandas as pd
import pytest

from feature_repo.flights import source

AIRPORTS = pd.DataFrame(
    {"faa": ["ORD", "LAX", "BOS"], "tzone": ["America/Chicago", "America/Los_Angeles", "America/New_York"]}
)


def a_flight(**changed: Any) -> pd.DataFrame:
    one = {
        "year": 2013, "month": 7, "day": 1, "time_hour": "2013-07-01T12:00:00Z", "minute": 15,
        "sched_arr_time": 945, "dep_delay": 4.0, "arr_delay": -6.0,
        "carrier": "UA", "flight": 7, "tailnum": "N14228", "origin": "EWR", "dest": "ORD", "distance": 719,
    }  # fmt: skip
    return source._flights(pd.DataFrame([one | changed]), AIRPORTS)


def text(moment: Any) -> str:
    return str(moment.isoformat())


def arrival(**changed: Any) -> str:
    return text(a_flight(**changed)["scheduled_arrival"].item())


def test_an_arrival_is_on_the_clock_of_its_destination() -> None:
    assert arrival() == "2013-07-01T14:45:00+00:00"


def test_an_arrival_after_midnight_is_on_the_next_day() -> None:
    evening = {"time_hour": "2013-07-02T03:00:00Z", "minute": 59, "dest": "BOS"}

    assert arrival(**evening, sched_arr_time=58) == "2013-07-02T04:58:00+00:00"


def test_midnight_written_as_2400_is_the_end_of_the_day() -> None:
    evening = {"time_hour": "2013-07-02T02:00:00Z", "minute": 0, "dest": "BOS"}

    assert (
        arrival(**evening, sched_arr_time=2400) == arrival(**evening, sched_arr_time=0) == "2013-07-02T04:00:00+00:00"
    )


def test_an_airport_in_puerto_rico_that_the_register_lacks_has_its_clock() -> None:
    assert arrival(dest="SJU", sched_arr_time=1220) == "2013-07-01T16:20:00+00:00"


@pytest.mark.parametrize(
    ("flight", "expected"),
    [
        # Clocks go forward at 2:00: the night is short.
        ({"month": 3, "day": 10, "time_hour": "2013-03-10T06:00:00Z", "minute": 30, "sched_arr_time": 345}, "07:45"),
        # Clocks go back at 2:00: half past one comes twice and the arrival after it is an hour later.
        ({"month": 11, "day": 3, "time_hour": "2013-11-03T04:00:00Z", "minute": 30, "sched_arr_time": 230}, "07:30"),
    ],
)
def test_the_nights_that_change_clocks_are_placed_right(flight: dict[str, Any], expected: str) -> None:
    assert expected in arrival(**flight, dest="BOS")


def test_a_flight_reports_its_departure_and_its_arrival_after_they_happened() -> None:
    reports = source._movements(a_flight()).set_index("kind")

    assert set(reports.index) == {"departure", "arrival"}
    assert (reports["known_at"] - reports["happened_at"]).eq(source.REPORTING_LAG).all()
    assert text(reports.loc["departure", "happened_at"]) == "2013-07-01T12:19:00+00:00"
    assert text(reports.loc["arrival", "happened_at"]) == "2013-07-01T14:39:00+00:00"


def test_a_cancellation_is_known_when_the_flight_should_have_left() -> None:
    report = source._movements(a_flight(dep_delay=None, arr_delay=None, tailnum=None)).iloc[0]

    assert report["kind"] == "cancellation"
    assert report["known_at"].isoformat() == "2013-07-01T12:25:00+00:00"
    assert pd.isna(report["happened_at"])


def test_a_diversion_is_known_when_the_flight_is_overdue() -> None:
    reports = source._movements(a_flight(arr_delay=None)).set_index("kind")

    assert set(reports.index) == {"departure", "diversion"}
    assert text(reports.loc["diversion", "known_at"]) == "2013-07-01T15:10:00+00:00"


def test_a_schedule_is_known_a_day_ahead_and_weather_an_hour_after() -> None:
    schedule = source._schedules(a_flight()).iloc[0]
    assert schedule["scheduled_departure"] - schedule["known_at"] == pd.Timedelta(hours=24)

    columns = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    hour = pd.DataFrame([{"origin": "EWR", "time_hour": "2013-07-01T12:00:00Z", **dict.fromkeys(columns, 1.0)}])
    observation = source._weather(hour).iloc[0]
    assert observation["known_at"] - observation["observed_at"] == pd.Timedelta(hours=1)
