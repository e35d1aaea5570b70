"""Faults injected into the real flights' features: each is caught in the first window that holds it, and named."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from evergreen.adapters.feast import Features
from evergreen.adapters.feature_tables import build_training_set, known_moments, load_training_set
from evergreen.monitoring.faults import find_faults, late_feeds
from evergreen.settings import ROOT, Settings
from evergreen.spec import load_spec
from evergreen.types import Fault, TrainingSet
from tests.flights_history import END, features, history, source_folder

SPEC = load_spec(ROOT / "models" / "flight_delay.toml")
WEEK = pd.Timedelta(days=7)
STARTS = tuple(pd.Timestamp(day, tz="UTC") for day in ("2013-02-07", "2013-02-12", "2013-02-18"))
WEATHER = ("temperature", "humidity", "wind_speed", "precipitation", "visibility")
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def rows(
    history: Settings, features: Features, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingSet, pd.DataFrame]:
    data = tmp_path_factory.mktemp("faults") / "data"
    data.mkdir()
    (data / "features").symlink_to(history.data / "features")
    made = build_training_set(data, SPEC, features, END)
    return made, load_training_set(made)


def look(rows: tuple[TrainingSet, pd.DataFrame], start: pd.Timestamp, change: Change) -> tuple[Fault, ...]:
    made, frame = rows
    at = frame["event_timestamp"]
    current = change(frame[(at >= start) & (at < start + WEEK)].copy())
    return find_faults(frame[at < start - WEEK], frame[(at >= start - WEEK) & (at < start)], current, made.features)


def celsius(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(temperature=(frame["temperature"] - 32) * 5 / 9)


def a_fifth_missing(frame: pd.DataFrame) -> pd.DataFrame:
    lost = np.random.default_rng(0).random(len(frame)) < 0.2
    return frame.assign(temperature=frame["temperature"].mask(lost))


def weather_a_day_late(frame: pd.DataFrame) -> pd.DataFrame:
    """Older than its time to live, it is not used: the values are missing from then on."""
    late = frame["event_timestamp"] >= frame["event_timestamp"].min() + timedelta(days=3)
    return frame.assign(**{name: frame[name].mask(late) for name in WEATHER})


def carrier_renamed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(carrier=frame["carrier"].replace("UA", "U9"))


FAULTS: dict[str, tuple[Change, str, str]] = {
    "celsius": (celsius, "unit", "temperature"),
    "a fifth missing": (a_fifth_missing, "missing", "temperature"),
    "a feed a day late": (weather_a_day_late, "missing", "humidity"),
    "a carrier renamed": (carrier_renamed, "vanished", "carrier"),
}


@pytest.mark.parametrize("start", STARTS, ids=str)
@pytest.mark.parametrize("name", FAULTS)
def test_an_injected_fault_is_caught_in_its_first_window(
    rows: tuple[TrainingSet, pd.DataFrame], name: str, start: pd.Timestamp
) -> None:
    change, kind, column = FAULTS[name]

    found = look(rows, start, change)

    [fault] = [each for each in found if (each.kind, each.column) == (kind, column)]
    begins = start + timedelta(days=3) if name == "a feed a day late" else start
    assert abs(fault.since - begins) <= timedelta(hours=8)  # no flight is asked about by night


# Not the week of the blizzard of 8 February: with five weeks of history an airport that stands still is a broken feed.
@pytest.mark.parametrize("start", STARTS[1:], ids=str)
def test_real_weeks_have_no_fault(rows: tuple[TrainingSet, pd.DataFrame], start: pd.Timestamp) -> None:
    assert look(rows, start, lambda frame: frame) == ()


@pytest.mark.parametrize("table", ["origin_weather", "flight_outcomes", "origin_congestion"])
def test_a_feed_that_is_a_day_late_is_named(history: Settings, features: Features, table: str) -> None:
    as_of = datetime(2013, 2, 20, 18, tzinfo=UTC)
    tables = (SPEC.data.examples, SPEC.data.labels, *features.tables(SPEC.data.feature_service))
    moments = known_moments(history.data, tables, as_of)
    assert table in moments
    assert late_feeds(moments, as_of) == ()

    moments[table] = [moment for moment in moments[table] if moment <= as_of - timedelta(days=1)]

    assert [(fault.kind, fault.column) for fault in late_feeds(moments, as_of)] == [("late", table)]
