"""What a raw row must be like to be let in."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.flights.checks import check

AT = datetime(2013, 5, 1, 12, tzinfo=UTC)


def schedules(*changes: dict[str, Any]) -> pd.DataFrame:
    rows = [
        {
            "example_id": f"2013-05-02-UA-{number}-EWR",
            "carrier": "UA",
            "flight": number,
            "origin": "EWR",
            "dest": "ORD",
            "tailnum": "N14228",
            "distance": 719,
            "scheduled_departure": AT,
            "scheduled_arrival": AT + timedelta(hours=2),
            "known_at": AT - timedelta(days=1),
        }
        | change
        for number, change in enumerate(changes, start=1)
    ]
    return in_microseconds(pd.DataFrame(rows))


def movements(*changes: dict[str, Any]) -> pd.DataFrame:
    return schedules(
        *({"kind": "departure", "happened_at": AT, "delay_minutes": 0} | change for change in changes)
    ).astype({"delay_minutes": "Int64", "happened_at": "datetime64[us, UTC]"})


def weather(*changes: dict[str, Any]) -> pd.DataFrame:
    calm = {"temp": 50.0, "dewp": 40.0, "humid": 60.0, "wind_dir": 90.0, "wind_speed": 5.0, "wind_gust": math.nan}
    clear = {"precip": 0.0, "pressure": 1013.0, "visib": 10.0}
    rows = [
        {
            "origin": "EWR",
            **calm,
            **clear,
            "observed_at": AT + timedelta(hours=n),
            "known_at": AT + timedelta(hours=n + 1),
        }
        | change
        for n, change in enumerate(changes)
    ]
    return in_microseconds(pd.DataFrame(rows))


def in_microseconds(rows: pd.DataFrame) -> pd.DataFrame:
    times = rows.select_dtypes("datetimetz").columns
    return rows.astype(dict.fromkeys(times, "datetime64[us, UTC]"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dest": "LGA"}, "dest: not a New York airport: no airline flies that hop"),
        ({"origin": "BOS"}, "origin: EWR, JFK or LGA"),
        ({"distance": 17}, "distance: between 50 and 6000 miles"),
        ({"tailnum": "N1"}, "tailnum: 4 to 6 letters or digits"),
        ({"scheduled_arrival": AT - timedelta(minutes=1)}, "scheduled to take between 15 minutes and 14 hours"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    checked = check("schedules", schedules({}, change))

    assert len(checked.good) == 1
    assert reason in checked.bad["reasons"].item()


@pytest.mark.parametrize("change", [{"delay_minutes": 5_000}, {"kind": "landing"}, {"kind": "cancellation"}])
def test_a_movement_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    assert len(check("movements", movements({}, change)).bad) == 1


def test_a_hurricane_of_a_thousand_miles_an_hour_is_refused_and_the_hour_after_it_is_not() -> None:
    checked = check("weather", weather({"wind_speed": 1_048.4}, {}))

    assert checked.bad["reasons"].tolist() == ["wind_speed: between 0 and 150 mph"]
    assert checked.good["wind_speed"].tolist() == [5.0]


def test_missing_measurements_are_let_in() -> None:
    assert len(check("weather", weather({"pressure": math.nan, "wind_dir": math.nan})).good) == 1


def test_of_duplicates_the_first_is_let_in() -> None:
    checked = check("schedules", schedules({"example_id": "twice"}, {"example_id": "twice", "carrier": "AA"}))

    assert checked.good["carrier"].tolist() == ["UA"]
    assert checked.bad["carrier"].tolist() == ["AA"]


def test_a_row_that_breaks_two_rules_is_refused_once_with_both_reasons() -> None:
    checked = check("schedules", schedules({"dest": "LGA", "distance": 17}))

    assert len(checked.bad) == 1
    assert checked.bad["reasons"].item().count(";") == 1


def test_a_batch_that_lacks_a_column_is_refused_whole() -> None:
    checked = check("schedules", schedules({}, {}).drop(columns="distance"))

    assert checked.good.empty
    assert len(checked.bad) == 2


def test_an_empty_batch_is_let_in() -> None:
    checked = check("schedules", schedules({})[:0])

    assert checked.good.empty
    assert checked.bad.empty


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "example_id": st.sampled_from(["a", "b", "c"]),
                "distance": st.sampled_from([17, 700, 9_000]),
                "dest": st.sampled_from(["ORD", "LGA", "?"]),
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_every_row_is_either_let_in_or_refused(changes: list[dict[str, Any]]) -> None:
    rows = schedules(*changes)

    checked = check("schedules", rows)

    together = pd.concat([checked.good, checked.bad.drop(columns="reasons")])
    assert sorted(together["flight"]) == sorted(rows["flight"])
    assert checked.good["example_id"].is_unique
    assert (checked.bad["reasons"] != "").all()
