"""Flights: raw rows in, feature tables out. The two calls every domain offers.

`ingest` brings what became known since the last time into `raw/`, and what breaks a rule into `quarantine/` with a
report a table and day. `build` turns raw rows into feature tables with the files of `sql/`: each row is stamped with
when it was known (`event_timestamp`), and only rows known by `as_of` exist for it. Both go by UTC days, replace the
current day as it grows, and give the same files however the time was cut into steps. To add a feature table, add an
SQL file and its name to `FEATURE_TABLES`. Called by Evergreen's `materialize` flow through `evergreen.wiring`.
"""

import json
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from evergreen.errors import DataError
from evergreen.types import Arrivals, BuildReport, IngestReport
from feature_repo.flights import source
from feature_repo.flights.partitions import (
    in_utc,
    midnight,
    only_one,
    partitions,
    write_atomically,
    write_partitions,
)

FEATURE_TABLES = (
    "flights",
    "flight_outcomes",
    "origin_weather",
    "origin_congestion",
    "carrier_origin_rates",  # reads flight_outcomes
    "route_rates",  # reads flight_outcomes
    "aircraft_last_leg",
    "aircraft",
)
_SQL = Path(__file__).parent / "sql"
_LOOKBACK = timedelta(
    days=33
)  # the longest rate covers 28 days of flights whose schedules came out up to 4 days before
_INSTANT = timedelta(microseconds=1)
_KEYS = {
    "schedules": "example_id",
    "movements": "example_id, kind",
    "weather": "origin, observed_at",
}  # not of `planes`: a later entry of the register is a correction


def ingest(data: Path, as_of: datetime) -> IngestReport:
    """Bring in the raw rows known by `as_of`. A moment already ingested brings nothing; a killed run is done again."""
    with only_one(data, "ingest"):
        after = _moment(data, "ingested")
        if after is not None and as_of <= after:
            nothing = Arrivals(received=0, good=0, quarantined=0)
            return IngestReport(after=after, until=after, tables=dict.fromkeys(source.TABLES, nothing))
        tables = {table: _arrive(data, table, after, as_of) for table in source.TABLES}
        _remember(data, "ingested", as_of)
        return IngestReport(after=after, until=as_of, tables=tables)


def _arrive(data: Path, table: str, after: datetime | None, until: datetime) -> Arrivals:
    from feature_repo.flights.checks import check  # pandera: not needed to read what is there

    reopened = midnight(after) - _INSTANT if after else None  # the day that was not over is done again, whole
    rows = source.known_between(data, table, reopened, until).reset_index(drop=True)
    checked = check(table, rows)
    moments = _arrived_at(rows, until)
    refused = moments[checked.bad.index].sort_values(kind="stable")
    bad = checked.bad.loc[refused.index]
    days = sorted(set(moments.dt.date))
    schema = source.schema(data, table)  # a day whose tail numbers are all missing still has a column of texts
    good = schema.empty_table()  # of a batch refused whole, not even the columns need be there
    if not checked.good.empty:
        good = pa.Table.from_pandas(checked.good, schema=schema, preserve_index=False)
    write_partitions(data / "raw" / table, good, "known_at", days)
    write_partitions(data / "quarantine" / table, _as_it_came(bad, schema), pa.Array.from_pandas(refused), days)
    _report(data / "quarantine" / table, table, days, moments, bad)

    new = moments > after if after else moments.notna()
    received, quarantined = int(new.sum()), int(new[bad.index].sum())
    return Arrivals(received=received, good=received - quarantined, quarantined=quarantined)


def _arrived_at(rows: pd.DataFrame, until: datetime) -> "pd.Series[pd.Timestamp]":
    """When each row became known; a row that does not say so came in at `until`, the last moment it can have been."""
    arrived = pd.Series(pd.Timestamp(until), index=rows.index, dtype="datetime64[us, UTC]")
    if "known_at" not in rows or not isinstance(rows["known_at"].dtype, pd.DatetimeTZDtype):
        return arrived
    return rows["known_at"].astype("datetime64[us, UTC]").fillna(arrived)


def _as_it_came(bad: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Refused rows with the columns they came with, in the types of `schema` where they fit and as texts elsewhere."""
    types = {field.name: field.type for field in schema} | {"reasons": pa.string()}
    columns = {}
    for name in map(str, bad.columns):
        try:
            columns[name] = pa.Array.from_pandas(bad[name], type=types.get(name))
        except (pa.ArrowException, TypeError, ValueError):
            texts = [None if pd.api.types.is_scalar(v) and pd.isna(v) else str(v) for v in bad[name]]
            columns[name] = pa.array(texts, pa.string())
    return pa.table(columns)


def _report(folder: Path, table: str, days: list[date], moments: "pd.Series[pd.Timestamp]", bad: pd.DataFrame) -> None:
    when = moments[bad.index].dt.date
    received = Counter(moments.dt.date)
    refused = Counter(when)
    for day in days:
        reasons = Counter(bad["reasons"][when == day]) if refused[day] else {}
        report = {
            "table": table,
            "day": day.isoformat(),
            "received": received[day],
            "good": received[day] - refused[day],
            "quarantined": refused[day],
            "reasons": dict(reasons),
        }
        write_atomically(folder / f"day={day.isoformat()}.json", json.dumps(report, indent=1) + "\n")


def build(data: Path, as_of: datetime) -> BuildReport:
    """(Re)build the feature tables' days from that of the last build up to `as_of`; `start` is its midnight.

    Raises `DataError` when raw rows are in only up to an earlier moment.
    """
    with only_one(data, "build"):
        ingested, built = _moment(data, "ingested"), _moment(data, "built")
        if ingested is None or as_of > ingested:
            raise DataError(
                f"feature tables were asked for as of {as_of.isoformat()}, but raw rows are in up to "
                f"{ingested.isoformat() if ingested else 'no moment at all'}. Run `ingest` up to that moment first."
            )
        if built is not None and as_of <= built:
            return BuildReport(start=built, until=built, rows=dict.fromkeys(FEATURE_TABLES, 0))
        start = midnight(built) if built else _first_day(data, as_of)
        with duckdb.connect(config={"threads": 1}) as connection:
            _load(connection, data, start, as_of)
            rows = {table: _build_table(connection, data, table, start, as_of) for table in FEATURE_TABLES}
        _remember(data, "built", as_of)
        return BuildReport(start=start, until=as_of, rows=rows)


def _first_day(data: Path, as_of: datetime) -> datetime:
    """The day of the first raw row; that of `as_of` when nothing was known by then."""
    names = [path.stem.removeprefix("day=") for table in source.TABLES for path in partitions(data / "raw" / table)]
    return min([midnight(as_of), *(midnight(date.fromisoformat(name)) for name in names)])


def _load(connection: duckdb.DuckDBPyConnection, data: Path, start: datetime, as_of: datetime) -> None:
    """Give the SQL its inputs: the raw tables as known at `as_of`, times without a zone and in UTC, and the window.

    Of rows that came again on a later day the first stands, as it does in `checks.py` within a batch.
    """
    connection.execute("SET TimeZone = 'UTC'")
    variables = {
        "window_start": start.replace(tzinfo=None),
        "window_end": as_of.replace(tzinfo=None),
        "late": source.LATE,
        "reporting_lag": source.REPORTING_LAG,
    }
    for name, value in variables.items():
        connection.execute(
            f"SET VARIABLE {name} = ?::{'INTERVAL' if isinstance(value, timedelta) else 'TIMESTAMP'}", [value]
        )
    for table in source.TABLES:
        files = partitions(data / "raw" / table, None if table == "planes" else start - _LOOKBACK, as_of)
        files = files or partitions(data / "raw" / table)[:1]  # for its columns
        if files:
            named = [str(path) for path in files]
            connection.execute(f"CREATE VIEW read_{table} AS SELECT * FROM read_parquet({named})")
        else:  # nothing of it ever came, or nothing was let in
            connection.register(f"read_{table}", source.schema(data, table).empty_table())
        described = connection.execute(f"DESCRIBE read_{table}").fetchall()
        times = [name for name, kind, *_ in described if kind == "TIMESTAMP WITH TIME ZONE"]
        columns = ", ".join(f"{name}::TIMESTAMP AS {name}" for name in times)
        connection.execute(
            f"CREATE TABLE {table} AS SELECT * REPLACE ({columns}) FROM read_{table} "
            "WHERE known_at::TIMESTAMP <= getvariable('window_end')"
        )
        if table in _KEYS:
            _keep_first(connection, table, _KEYS[table])
    _load_refused(connection, data, start, as_of)


def _keep_first(connection: duckdb.DuckDBPyConnection, table: str, key: str) -> None:
    """Looking whether a key came twice costs a tenth of the window function that it seldom needs."""
    [(repeated,)] = connection.execute(f"SELECT count(*) > count(DISTINCT ({key})) FROM {table}").fetchall()
    if repeated:
        connection.execute(
            f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM {table} "
            f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY known_at) = 1"
        )


def _load_refused(connection: duckdb.DuckDBPyConnection, data: Path, start: datetime, as_of: datetime) -> None:
    """Table `refused_movements`: flight, kind and moment, each NULL where the row does not say, and the day it is filed."""
    files = [str(path) for path in partitions(data / "quarantine" / "movements", start - _LOOKBACK, as_of)]
    came = f"UNION ALL BY NAME SELECT * FROM read_parquet({files}, union_by_name = true, filename = true)"
    connection.execute(
        "CREATE TABLE refused_movements AS SELECT example_id, kind, "
        "TRY_CAST(known_at AS TIMESTAMPTZ)::TIMESTAMP AS known_at, "
        "regexp_extract(filename, 'day=([0-9-]+)', 1)::DATE AS day FROM ("
        "SELECT '' AS example_id, '' AS kind, '' AS known_at, '' AS filename WHERE false "
        f"{came if files else ''}) WHERE coalesce(TRY_CAST(known_at AS TIMESTAMPTZ)::TIMESTAMP, '-infinity') "
        "<= getvariable('window_end')"
    )


def _build_table(
    connection: duckdb.DuckDBPyConnection, data: Path, table: str, start: datetime, as_of: datetime
) -> int:
    connection.execute(f"CREATE TABLE {table} AS {(_SQL / f'{table}.sql').read_text()}")
    rows = connection.sql(
        f"SELECT * FROM {table} WHERE event_timestamp BETWEEN getvariable('window_start') AND getvariable('window_end') "
        "ORDER BY event_timestamp, 1, 2"
    ).to_arrow_table()
    existing = [
        date.fromisoformat(path.stem.removeprefix("day="))
        for path in partitions(data / "features" / table, start, as_of)
    ]
    known = rows.column("event_timestamp").cast(pa.int64()).to_pandas().floordiv(86_400_000_000).unique()
    days = sorted({*existing, *(date(1970, 1, 1) + timedelta(days=int(n)) for n in known)})
    write_partitions(data / "features" / table, in_utc(rows), "event_timestamp", days)
    return len(rows)


def _moment(data: Path, state: str) -> datetime | None:
    path = data / "state" / f"flights-{state}.json"
    return datetime.fromisoformat(json.loads(path.read_text())["as_of"]) if path.is_file() else None


def _remember(data: Path, state: str, as_of: datetime) -> None:
    write_atomically(data / "state" / f"flights-{state}.json", json.dumps({"as_of": as_of.isoformat()}) + "\n")
