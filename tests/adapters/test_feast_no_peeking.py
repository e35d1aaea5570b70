"""Law 1 on real rows: what a flight's features say is what the raw reports known at that moment say, and nothing more.

The reference goes through the raw rows for one flight at a time, keeps those known at the moment of asking, and counts.
It shares no code with the SQL, the store or the on-demand view.
"""

import math
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pytest

from evergreen.adapters import feature_tables
from evergreen.adapters.feast import Features
from evergreen.settings import Settings
from evergreen.spec import load_spec
from evergreen.types import Window
from tests.flights_history import END, features, history

MINUTE = pd.Timedelta(minutes=1)
HOUR = pd.Timedelta(hours=1)
DAY = pd.Timedelta(days=1)


@dataclass
class Raw:
    """What had been reported up to a moment."""

    schedules: pd.DataFrame
    movements: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame

    @cached_property
    def last_words(self) -> pd.DataFrame:
        """Arrivals, cancellations and diversions."""
        return self.movements[self.movements["kind"] != "departure"]

    def known(self, moment: pd.Timestamp) -> "Raw":
        return Raw(*(getattr(self, f.name)[getattr(self, f.name)["known_at"] <= moment] for f in fields(self)))


def read(data: Path, table: str) -> pd.DataFrame:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(f"SELECT * FROM read_parquet('{data}/raw/{table}/*.parquet')").df()
    # Categories make sixty times looking through every row bearable.
    return rows.astype({name: "category" for name in ("carrier", "origin", "dest", "kind", "tailnum") if name in rows})


@pytest.fixture(scope="module")
def raw(history: Settings) -> Raw:
    return Raw(*(read(history.data, table) for table in ("schedules", "movements", "weather", "planes")))


@pytest.fixture(scope="module")
def sample(history: Settings, features: Features) -> pd.DataFrame:
    """Sixty flights of all hours of the last four weeks, with their features; a snow storm on 8 and 9 February is in it."""
    spec = load_spec(history.models_dir / "flight_delay.toml")
    window = Window(start=END - timedelta(days=28), end=END)
    examples = feature_tables.read_examples(history.data, spec, window, END)
    storm = examples[examples["event_timestamp"].dt.date == datetime(2013, 2, 9, tzinfo=UTC).date()]
    drawn = pd.concat([examples.sample(45, random_state=1), storm.sample(15, random_state=2)])
    return features.historical("flight_delay", drawn)


def mean(values: Any) -> float:
    return sum(values) / len(values) if len(values) else math.nan


def same(row: pd.Series, expected: dict[str, float]) -> list[str]:
    """Names that differ; a missing number equals a missing number."""
    return [
        f"{name}: {row[name]} is not {value} ({row['example_id']})"
        for name, value in expected.items()
        if not (pd.isna(row[name]) and pd.isna(value))
        and not math.isclose(row[name], value, rel_tol=1e-12, abs_tol=1e-9)
    ]


def weather_of(row: pd.Series, known: Raw) -> dict[str, float]:
    here = known.weather[known.weather["origin"] == row["origin"]]
    last = here.loc[here["observed_at"].idxmax()]
    age = row["event_timestamp"] - last["known_at"]
    if age > 6 * HOUR:
        return {"temperature": math.nan, "wind_speed": math.nan, "precipitation_6h": math.nan}
    recent = here[here["observed_at"] > last["observed_at"] - 6 * HOUR]
    angle = math.radians(last["wind_dir"])
    return {
        "temperature": last["temp"],
        "dew_point_spread": last["temp"] - last["dewp"],
        "humidity": last["humid"],
        "wind_speed": last["wind_speed"],
        "wind_gust": last["wind_speed"] if pd.isna(last["wind_gust"]) else last["wind_gust"],
        "wind_north": last["wind_speed"] * math.cos(angle),
        "wind_east": last["wind_speed"] * math.sin(angle),
        "precipitation": last["precip"],
        "precipitation_6h": round(recent["precip"].sum(), 2),
        "pressure": last["pressure"],
        "visibility": last["visib"],
    }


def congestion_of(row: pd.Series, raw: Raw) -> dict[str, float]:
    moment = row["event_timestamp"].floor("15min")
    known = raw.known(moment)
    flights = known.schedules[known.schedules["origin"] == row["origin"]]
    reports = known.movements[known.movements["origin"] == row["origin"]]
    resolved = set(reports["example_id"][reports["kind"].isin(["departure", "cancellation"])])
    planned = flights["scheduled_departure"]
    waiting = flights[(planned <= moment - 15 * MINUTE) & (planned > moment - DAY)]
    expected = {
        "overdue_departures": float((~waiting["example_id"].isin(resolved)).sum()),
        "departures_due_1h": float(((planned > moment) & (planned <= moment + HOUR)).sum()),
        "departures_due_3h": float(((planned > moment) & (planned <= moment + 3 * HOUR)).sum()),
    }
    for hours in (1, 3, 6):
        recent = reports[reports["known_at"] > moment - hours * HOUR]
        departed, arrived = recent[recent["kind"] == "departure"], recent[recent["kind"] == "arrival"]
        expected[f"departure_delay_{hours}h"] = mean(departed["delay_minutes"])
        expected[f"arrival_delay_{hours}h"] = mean(arrived["delay_minutes"])
        if hours == 1:
            expected["departed_1h"] = float(len(departed))
        if hours == 3:
            cancelled = int((recent["kind"] == "cancellation").sum())
            expected["cancelled_share_3h"] = (
                cancelled / (cancelled + len(departed)) if cancelled + len(departed) else math.nan
            )
    return expected


def outcome(flight: dict[str, Any], words: dict[str, Any], moment: pd.Timestamp) -> tuple[pd.Timestamp, int] | None:
    """When it was certain whether the flight is late, and what; None while it is not known at `moment`."""
    overdue = flight["scheduled_arrival"] + 25 * MINUTE  # 15 minutes late and 10 minutes to hear of it
    word = words.get(flight["example_id"])
    if word is not None and word["known_at"] < overdue:
        return word["known_at"], int(word["kind"] == "cancellation")
    return (overdue, 1) if overdue <= moment else None


def rates_of(row: pd.Series, raw: Raw, keys: list[str], step: str, prefix: str) -> dict[str, float]:
    moment = row["event_timestamp"].floor(step)
    here = [table.loc[(table[keys] == row[keys]).all(axis=1)] for table in (raw.schedules, raw.last_words)]
    flights, words_known = (table[table["known_at"] <= moment] for table in here)
    words = {word["example_id"]: word for word in words_known[["example_id", "kind", "known_at"]].to_dict("records")}
    flights = flights[["example_id", "scheduled_arrival"]]
    outcomes = [found for flight in flights.to_dict("records") if (found := outcome(flight, words, moment)) is not None]
    expected = {}
    for days in (1, 7, 28):
        counted = [late for at, late in outcomes if moment - days * DAY < at <= moment]
        expected[f"{prefix}_flights_{days}d"] = float(len(counted))
        expected[f"{prefix}_late_rate_{days}d"] = mean(counted)
    # A key without flights for 28 days has no rows any more; its last one is used until it is too old.
    return expected if expected[f"{prefix}_flights_28d"] else {}


def aircraft_of(row: pd.Series, known: Raw) -> dict[str, float]:
    legs = known.movements[
        (known.movements["tailnum"] == row["tailnum"]) & known.movements["kind"].isin(["departure", "arrival"])
    ]
    plane = known.planes[known.planes["tailnum"] == row["tailnum"]]
    year = plane["year"].item() if len(plane) else math.nan
    departure = row["scheduled_departure"].tz_convert(ZoneInfo("America/New_York"))
    expected = {
        "aircraft_seats": float(plane["seats"].item()) if len(plane) else math.nan,
        "aircraft_age_years": departure.year - year,
        "local_hour": departure.hour + departure.minute / 60,
        "day_of_week": float(departure.dayofweek),
    }
    last = legs.loc[legs["known_at"].idxmax()] if len(legs) else None
    if last is None or row["event_timestamp"] - last["known_at"] > 36 * HOUR:
        return expected | dict.fromkeys(["leg_delay", "leg_arrived", "hours_since_leg", "leg_slack_minutes"], math.nan)
    landed = last["kind"] == "arrival"
    ready = last["happened_at"] if landed else last["scheduled_arrival"] + last["delay_minutes"] * MINUTE
    block = (last["scheduled_arrival"] - last["scheduled_departure"]) / MINUTE
    return expected | {
        "leg_delay": float(last["delay_minutes"]),
        "leg_arrived": float(landed),
        "leg_block_minutes": block,
        "hours_since_leg": (row["scheduled_departure"] - ready) / HOUR,
        "leg_slack_minutes": (row["scheduled_departure"] - ready) / MINUTE - block,
    }


def test_the_weather_is_what_was_published(sample: pd.DataFrame, raw: Raw) -> None:
    faults = [f for _, row in sample.iterrows() for f in same(row, weather_of(row, raw.known(row["event_timestamp"])))]
    assert faults == []


def test_congestion_is_what_was_reported_at_the_last_quarter_of_an_hour(sample: pd.DataFrame, raw: Raw) -> None:
    faults = [fault for _, row in sample.iterrows() for fault in same(row, congestion_of(row, raw))]
    assert faults == []
    assert sample["cancelled_share_3h"].max() > 0.5  # the storm is in the sample


def test_rates_of_carriers_count_outcomes_known_at_the_last_full_hour(sample: pd.DataFrame, raw: Raw) -> None:
    faults = [
        fault
        for _, row in sample[::3].iterrows()
        for fault in same(row, rates_of(row, raw, ["carrier", "origin"], "h", "carrier"))
    ]
    assert faults == []
    assert sample["carrier_flights_1d"].notna().mean() > 0.9


def test_rates_of_routes_count_outcomes_known_at_the_last_third_hour(sample: pd.DataFrame, raw: Raw) -> None:
    faults = [
        fault
        for _, row in sample[::3].iterrows()
        for fault in same(row, rates_of(row, raw, ["origin", "dest"], "3h", "route"))
    ]
    assert faults == []
    assert sample["route_flights_7d"].notna().mean() > 0.9


def test_the_aircraft_and_its_last_leg_are_those_heard_of(sample: pd.DataFrame, raw: Raw) -> None:
    faults = [f for _, row in sample.iterrows() for f in same(row, aircraft_of(row, raw.known(row["event_timestamp"])))]
    assert faults == []
    assert 0.2 < sample["leg_delay"].notna().mean() < 1.0


def test_no_flight_is_asked_about_before_it_was_announced(sample: pd.DataFrame, raw: Raw) -> None:
    announced = raw.schedules.set_index("example_id")["known_at"]
    assert (sample["example_id"].map(announced) <= sample["event_timestamp"]).all()
