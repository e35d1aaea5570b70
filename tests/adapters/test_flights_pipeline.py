"""Ingestion and building on the real flights: what comes in, what is refused, and that the steps do not matter."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.errors import DataError
from evergreen.settings import Settings
from feature_repo.flights import pipeline, source
from feature_repo.flights.checks import Checked, check
from feature_repo.flights.partitions import write_partitions
from tests.flights_history import END, history, source_folder, with_source

JANUARY = datetime(2013, 1, 3, 15, 20, tzinfo=UTC)


@pytest.fixture
def data(tmp_path: Path, source_folder: Path) -> Path:
    return with_source(tmp_path / "data", source_folder)


def tables(data: Path, kind: str) -> dict[str, pa.Table]:
    """Partition → rows."""
    return {str(path.relative_to(data)): pq.read_table(path) for path in sorted((data / kind).glob("*/*.parquet"))}


def rows(data: Path, pattern: str) -> pd.DataFrame:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(f"SELECT * FROM read_parquet('{data / pattern}')").df()


def test_however_the_time_is_cut_into_steps_the_tables_are_the_same(history: Settings, data: Path) -> None:
    steps = [
        datetime(2013, 1, 20, 11, 7, tzinfo=UTC),
        datetime(2013, 1, 20, 11, 8, tzinfo=UTC),
        datetime(2013, 2, 9, 3, 30, tzinfo=UTC),  # in the middle of a storm
        datetime(2013, 2, 26, 0, 0, tzinfo=UTC),
        END,
    ]
    for moment in steps:
        pipeline.ingest(data, moment)
        pipeline.build(data, moment)

    for kind in ("raw", "quarantine", "features"):
        stepped, whole = tables(data, kind), tables(history.data, kind)
        assert stepped.keys() == whole.keys()
        different = [name for name in whole if not stepped[name].equals(whole[name])]
        assert different == []


def test_no_partition_holds_a_row_known_after_the_moment_it_was_made_for(data: Path) -> None:
    pipeline.ingest(data, JANUARY)
    pipeline.build(data, JANUARY)

    for name, table in (tables(data, "raw") | tables(data, "features")).items():
        column = "known_at" if name.startswith("raw") else "event_timestamp"
        moments = table.column(column).to_pandas()
        assert moments.max() <= pd.Timestamp(JANUARY), name
        assert set(moments.dt.strftime("day=%Y-%m-%d.parquet")) == {Path(name).name}
        times = [field for field in table.schema if pa.types.is_timestamp(field.type)]
        assert all(field.type == pa.timestamp("us", tz="UTC") for field in times), name


def test_a_moment_that_was_ingested_and_built_brings_nothing_again(data: Path) -> None:
    pipeline.ingest(data, JANUARY)
    pipeline.build(data, JANUARY)
    before = {path: path.stat().st_mtime_ns for path in data.glob("[rf]*/*/*.parquet")}

    again = pipeline.ingest(data, JANUARY)
    earlier = pipeline.ingest(data, JANUARY - timedelta(hours=5))
    built = pipeline.build(data, JANUARY)

    assert all(table.received == 0 for report in (again, earlier) for table in report.tables.values())
    assert set(built.rows.values()) == {0}
    assert {path: path.stat().st_mtime_ns for path in data.glob("[rf]*/*/*.parquet")} == before


def test_steps_count_each_row_once(data: Path) -> None:
    reports = [pipeline.ingest(data, JANUARY + timedelta(hours=7 * n)) for n in range(5)]

    for table in source.TABLES:
        counted = sum(report.tables[table].good for report in reports)
        assert counted == len(rows(data, f"raw/{table}/*.parquet"))
    assert reports[1].after == reports[0].until


@pytest.mark.parametrize("broken", ["ingest", "build"])
def test_a_run_that_dies_half_way_is_done_again_to_the_same_end(
    data: Path, source_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    untouched = with_source(tmp_path / "untouched", source_folder)
    for moment in (JANUARY, JANUARY + timedelta(days=1)):
        pipeline.ingest(untouched, moment)
        pipeline.build(untouched, moment)
    pipeline.ingest(data, JANUARY)
    pipeline.build(data, JANUARY)
    if broken == "build":
        pipeline.ingest(data, JANUARY + timedelta(days=1))
    real, left = write_partitions, iter(range(5))

    def dies(folder: Path, table: pa.Table, column: str, days: list[date]) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(folder, table, column, days)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "write_partitions", dies)
        with pytest.raises(KeyboardInterrupt):
            getattr(pipeline, broken)(data, JANUARY + timedelta(days=1))
    pipeline.ingest(data, JANUARY + timedelta(days=1))
    pipeline.build(data, JANUARY + timedelta(days=1))

    for kind in ("raw", "features"):
        assert tables(data, kind) == tables(untouched, kind)


def test_features_are_not_built_beyond_what_was_ingested(data: Path) -> None:
    pipeline.ingest(data, JANUARY)

    with pytest.raises(DataError, match=r"raw rows are in up to 2013-01-03T15:20:00\+00:00\. Run `ingest`"):
        pipeline.build(data, JANUARY + timedelta(seconds=1))


def test_a_clock_long_after_the_last_flight_adds_no_empty_days(data: Path) -> None:
    today = datetime(2026, 1, 1, tzinfo=UTC)
    pipeline.ingest(data, JANUARY)
    # As if the source had ended here: nothing came after it up to today.
    (data / "state" / "flights-ingested.json").write_text(json.dumps({"as_of": today.isoformat()}))

    pipeline.build(data, today)

    assert max(path.stem for path in (data / "features").glob("*/*.parquet")) <= "day=2013-02-05"


@pytest.fixture(scope="module")
def whole_year(source_folder: Path) -> dict[str, Checked]:
    """Every raw table of 2013 as it would arrive, checked."""
    end = datetime(2014, 2, 1, tzinfo=UTC)
    return {table: check(table, source.known_between(source_folder, table, None, end)) for table in source.TABLES}


def test_of_the_whole_year_exactly_the_known_errors_are_refused(whole_year: dict[str, Checked]) -> None:
    assert {table: len(checked.bad) for table, checked in whole_year.items()} == {
        "schedules": 1, "movements": 1, "weather": 1, "planes": 0,
    }  # fmt: skip
    assert {table: len(checked.good) for table, checked in whole_year.items()} == {
        "schedules": 336_775, "movements": 665_296, "weather": 26_114, "planes": 3_322,
    }  # fmt: skip
    assert whole_year["schedules"].bad["example_id"].item() == "2013-07-27-US-1632-EWR"
    assert whole_year["movements"].bad["dest"].item() == "LGA"
    assert whole_year["weather"].bad["wind_speed"].item() > 1_000


def test_every_flight_that_was_let_in_has_exactly_one_last_word(whole_year: dict[str, Checked]) -> None:
    schedules, movements = whole_year["schedules"].good, whole_year["movements"].good
    last_words = movements[movements["kind"] != "departure"]

    assert schedules["example_id"].is_unique
    assert last_words["example_id"].is_unique
    assert set(last_words["example_id"]) == set(schedules["example_id"])


def test_the_label_says_what_the_records_say(history: Settings) -> None:
    outcomes = rows(history.data, "features/flight_outcomes/*.parquet")
    first = outcomes[outcomes["revision"] == 0].set_index("example_id")
    words = rows(history.data, "raw/movements/*.parquet").query("kind != 'departure'").set_index("example_id")
    heard = first.join(words[["kind", "delay_minutes"]], how="inner")

    late = (heard["kind"] != "arrival") | (heard["delay_minutes"] >= 15)
    assert len(heard) > 45_000
    assert (heard["late"] == late.astype(int)).all()
    assert first.index.is_unique


def test_a_label_is_known_when_it_is_certain_and_no_earlier(history: Settings) -> None:
    outcomes = rows(history.data, "features/flight_outcomes/*.parquet")
    flights = rows(history.data, "features/flights/*.parquet").set_index("example_id")
    first = outcomes[outcomes["revision"] == 0].join(flights[["scheduled_arrival"]], on="example_id")
    overdue = first["scheduled_arrival"] + source.LATE + source.REPORTING_LAG

    landed = (first["late"] == 0) & first["completed"].eq(True)
    assert (first["event_timestamp"][landed] < overdue[landed]).all()
    unheard = (first["late"] == 1) & first["completed"].isna()
    assert (first["event_timestamp"][unheard] == overdue[unheard]).all()
    assert first["arrival_delay_minutes"][unheard].isna().all()
    assert unheard.sum() > 5_000


def test_a_tail_number_is_never_missing_and_its_gap_does_not_tell_a_cancellation(history: Settings) -> None:
    flights = rows(history.data, "features/flights/*.parquet")
    schedules = rows(history.data, "raw/schedules/*.parquet").set_index("example_id")
    gap = flights["example_id"].isin(set(schedules.index[schedules["tailnum"].isna()]))

    assert flights["tailnum"].notna().all()
    assert gap.sum() > 300
    assert (flights["tailnum"][gap] == "UNKNOWN").mean() < 0.05

    legs = rows(history.data, "features/aircraft_last_leg/*.parquet").sort_values("event_timestamp")
    asked = flights.assign(
        at=(flights["scheduled_departure"] - pd.Timedelta(hours=2)).dt.as_unit("us"), gap=gap
    ).sort_values("at")
    heard_of = pd.merge_asof(
        asked, legs[["event_timestamp", "tailnum", "leg_delay"]], left_on="at", right_on="event_timestamp",
        by="tailnum", tolerance=pd.Timedelta(hours=36),
    )["leg_delay"].notna()  # fmt: skip
    share = heard_of.groupby(asked["gap"].to_numpy()).mean()
    assert abs(share[True] - share[False]) < 0.15


def test_a_gap_is_filled_from_the_days_before_yesterday_and_not_from_later(data: Path) -> None:
    pipeline.ingest(data, JANUARY)
    times = pd.to_datetime([f"2013-01-0{day}T12:00:00Z" for day in (1, 2, 3, 4)], utc=True).as_unit("us")
    names = ["N100AA", "N200AA", None, "N400AA"]
    template = rows(data, "raw/schedules/*.parquet").iloc[[0] * 4]
    planned = template.assign(
        example_id=["a", "b", "c", "d"], tailnum=pd.Series(names, index=template.index), known_at=times,
        scheduled_departure=times + timedelta(days=1), scheduled_arrival=times + timedelta(days=1, hours=2),
    )  # fmt: skip
    for path in (data / "raw" / "schedules").iterdir():
        path.unlink()
    planned.to_parquet(data / "raw" / "schedules" / "day=2013-01-01.parquet", index=False)

    pipeline.build(data, JANUARY)

    built = rows(data, "features/flights/*.parquet").set_index("example_id")["tailnum"]
    assert built.to_dict() == {"a": "N100AA", "b": "N200AA", "c": "N100AA"}


def test_every_day_and_table_has_a_report_whose_counts_add_up(history: Settings) -> None:
    for table in ("schedules", "movements", "weather"):
        reports = [json.loads(path.read_text()) for path in (history.data / "quarantine" / table).glob("*.json")]
        assert len(reports) > 55
        assert all(report["received"] == report["good"] + report["quarantined"] for report in reports)
        assert sum(report["good"] for report in reports) == len(rows(history.data, f"raw/{table}/*.parquet"))

    storm = json.loads((history.data / "quarantine" / "weather" / "day=2013-02-12.json").read_text())
    assert storm["quarantined"] == 1
    assert storm["reasons"] == {"wind_speed: between 0 and 150 mph": 1}
    assert len(rows(history.data, "quarantine/weather/day=2013-02-12.parquet")) == 1
