"""Ingestion and building on the real flights: what comes in, what is refused, and that the steps do not matter."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.adapters import feature_tables
from evergreen.adapters.feast import Features
from evergreen.errors import DataError
from evergreen.settings import Settings
from evergreen.spec import load_spec
from evergreen.types import Window
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


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """From now on the batches of one table arrive changed."""
    real = source.known_between

    def known_between(data: Path, table: str, after: datetime | None, until: datetime) -> pd.DataFrame:
        rows = real(data, table, after, until)
        return change(rows) if table == spoiled else rows

    monkeypatch.setattr(source, "known_between", known_between)


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        ("schedules", lambda rows: rows.drop(columns="distance"), "distance: not in the batch"),
        ("schedules", lambda rows: rows.drop(columns="example_id"), "example_id"),
        ("schedules", lambda rows: rows.assign(distance="far"), "distance: between"),
        ("movements", lambda rows: rows.drop(columns="delay_minutes"), "delay_minutes"),
        ("movements", lambda rows: rows.drop(columns=["example_id", "kind"]), "example_id"),
        ("weather", lambda rows: rows.assign(temp=rows["temp"].astype(str) + " F"), "temp"),
        ("weather", lambda rows: rows.drop(columns="observed_at"), "observed_at"),
        ("planes", lambda rows: rows.assign(tailnum=7, engines=1.5), "engines: dtype"),
        ("planes", lambda rows: rows.drop(columns="tailnum"), "tailnum"),
    ],
)
def test_a_batch_of_the_wrong_shape_is_quarantined_whole_and_the_other_tables_go_on(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    reason: str,
) -> None:
    spoil(monkeypatch, table, change)

    report = pipeline.ingest(data, JANUARY)
    built = pipeline.build(data, JANUARY)

    refused = report.tables[table]
    assert refused.good == 0
    assert refused.received == refused.quarantined > 0
    assert all(report.tables[other].good > 0 for other in source.TABLES if other != table)
    assert not list((data / "raw" / table).glob("*.parquet"))
    quarantined = [pq.read_table(path).to_pandas() for path in (data / "quarantine" / table).glob("*.parquet")]
    assert sum(map(len, quarantined)) == refused.quarantined
    assert all(part["reasons"].str.contains(reason).all() for part in quarantined)
    reports = [json.loads(path.read_text()) for path in (data / "quarantine" / table).glob("*.json")]
    assert sum(day["quarantined"] for day in reports) == refused.quarantined
    assert sum(sum(day["reasons"].values()) for day in reports) == refused.quarantined
    assert (built.rows["flights"] > 0) == (table != "schedules")
    assert (built.rows["origin_weather"] > 0) == (table != "weather")


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.drop(columns="known_at"),
        lambda rows: rows.assign(known_at="some time"),
        lambda rows: rows.assign(known_at=rows["known_at"].dt.tz_localize(None)),
    ],
)
def test_rows_that_do_not_say_when_they_became_known_are_filed_under_the_day_they_came_in(
    data: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    spoil(monkeypatch, "movements", change)

    report = pipeline.ingest(data, JANUARY).tables["movements"]
    pipeline.build(data, JANUARY)

    folder = data / "quarantine" / "movements"
    assert {path.name for path in folder.iterdir()} == {"day=2013-01-03.parquet", "day=2013-01-03.json"}
    assert report.quarantined == len(pq.read_table(folder / "day=2013-01-03.parquet")) > 1_000


def test_a_single_row_without_a_moment_is_refused_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "weather", lambda rows: rows.assign(known_at=rows["known_at"].where(rows.index > 0)))

    report = pipeline.ingest(data, JANUARY).tables["weather"]

    assert report.quarantined == 1
    assert report.good > 100
    assert len(pq.read_table(data / "quarantine" / "weather" / "day=2013-01-03.parquet")) == 1


def test_after_a_batch_of_the_wrong_shape_the_next_day_is_let_in(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        spoil(patched, "weather", lambda rows: rows.drop(columns="temp"))
        pipeline.ingest(data, JANUARY)
        pipeline.build(data, JANUARY)

    report = pipeline.ingest(data, JANUARY + timedelta(days=1))
    built = pipeline.build(data, JANUARY + timedelta(days=1))

    assert report.tables["weather"].quarantined == 0
    assert built.rows["origin_weather"] > 0
    # The day that was not over came again whole, and right.
    assert not (data / "quarantine" / "weather" / "day=2013-01-03.parquet").exists()


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2012, 11, 1, tzinfo=UTC),
        datetime(2012, 12, 15, tzinfo=UTC),
        datetime(2012, 12, 31, 12, tzinfo=UTC),
        datetime(2013, 1, 1, 12, tzinfo=UTC),
    ],
)
def test_before_there_is_anything_to_know_the_tables_are_empty_and_later_ones_the_same(
    data: Path, tmp_path: Path, source_folder: Path, moment: datetime
) -> None:
    later = datetime(2013, 1, 1, 21, tzinfo=UTC)
    once = with_source(tmp_path / "once", source_folder)
    pipeline.ingest(once, later)
    pipeline.build(once, later)

    pipeline.ingest(data, moment)
    early = pipeline.build(data, moment)

    assert early.start is not None
    assert early.start <= early.until
    assert early.rows["flight_outcomes"] == 0 or moment.year == 2013
    assert (early.rows["flights"] == 0) == (moment < datetime(2012, 12, 31, tzinfo=UTC))
    assert (early.rows["aircraft"] == 0) == (moment < source.REGISTER_KNOWN)
    pipeline.ingest(data, later)
    pipeline.build(data, later)
    assert tables(data, "features") == tables(once, "features")


def test_tables_of_a_moment_before_those_that_were_ingested_can_be_built(data: Path) -> None:
    pipeline.ingest(data, JANUARY)

    report = pipeline.build(data, datetime(2012, 11, 1, tzinfo=UTC))

    assert set(report.rows.values()) == {0}


@pytest.mark.parametrize(
    "moment", [datetime(2012, 11, 1, tzinfo=UTC), datetime(2012, 12, 15, tzinfo=UTC)], ids=["nothing", "register"]
)
def test_what_is_asked_before_there_is_anything_to_know_is_refused_with_what_to_do(
    history: Settings, data: Path, tmp_path: Path, moment: datetime
) -> None:
    pipeline.ingest(data, moment)
    pipeline.build(data, moment)
    spec = load_spec(history.models_dir / "flight_delay.toml")
    window = Window(start=moment - timedelta(days=5), end=moment)
    features = Features(Settings(home=tmp_path))
    features.apply()
    asked = {"origin": "EWR", "dest": "ORD", "carrier": "UA", "tailnum": "N14228", "distance": 719.0}
    flight = {"scheduled_departure": moment, "scheduled_arrival": moment, "event_timestamp": moment}

    with pytest.raises(DataError, match=r"'flights' has no rows up to 2012-.*ask about a later moment"):
        feature_tables.read_examples(data, spec, window, moment)
    with pytest.raises(DataError, match=r"'flight_outcomes' has no rows up to 2012-.*ask about a later moment"):
        feature_tables.read_outcomes(data, spec, window)
    with pytest.raises(DataError, match=r"has no Parquet file at .* build its feature table first"):
        features.historical("flight_delay", pd.DataFrame([asked | flight]))


def one_flight(data: Path, moment: datetime) -> pd.Series:
    """Of the flights that had landed by `moment`, on time and with nothing about them out of the ordinary, one."""
    outcomes = rows(data, "features/flight_outcomes/*.parquet").query("late == 0 and completed")
    return outcomes[outcomes["event_timestamp"] < pd.Timestamp(moment) - timedelta(hours=6)].iloc[-1]


def outcomes_of(data: Path, example_id: str) -> pd.DataFrame:
    return rows(data, "features/flight_outcomes/*.parquet").query("example_id == @example_id")


@pytest.fixture
def landed(history: Settings) -> pd.Series:
    """An outcome of a flight that was on time."""
    return one_flight(history.data, JANUARY)


def damaged(example_id: str, kind: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        hit = (rows["example_id"] == example_id) & (rows["kind"] == kind)
        return rows.assign(delay_minutes=rows["delay_minutes"].where(~hit, 5_000))

    return change


def test_a_flight_whose_arrival_was_refused_has_no_label_rather_than_a_wrong_one(
    data: Path, monkeypatch: pytest.MonkeyPatch, landed: pd.Series
) -> None:
    spoil(monkeypatch, "movements", damaged(landed["example_id"], "arrival"))

    pipeline.ingest(data, JANUARY)
    pipeline.build(data, JANUARY)

    assert landed["example_id"] in set(rows(data, "quarantine/movements/*.parquet")["example_id"])
    assert outcomes_of(data, landed["example_id"]).empty
    assert len(rows(data, "features/flight_outcomes/*.parquet")) > 1_000


def test_a_flight_whose_departure_was_refused_keeps_the_label_of_its_arrival(
    data: Path, monkeypatch: pytest.MonkeyPatch, landed: pd.Series
) -> None:
    spoil(monkeypatch, "movements", damaged(landed["example_id"], "departure"))

    pipeline.ingest(data, JANUARY)
    pipeline.build(data, JANUARY)

    assert outcomes_of(data, landed["example_id"])["late"].tolist() == [0]


def test_an_arrival_refused_after_the_flight_was_overdue_does_not_take_its_label_back(
    data: Path, monkeypatch: pytest.MonkeyPatch, history: Settings
) -> None:
    overdue = rows(history.data, "features/flight_outcomes/*.parquet").query("revision == 1").iloc[0]
    spoil(monkeypatch, "movements", damaged(overdue["example_id"], "arrival"))

    pipeline.ingest(data, JANUARY)
    pipeline.build(data, JANUARY)

    assert outcomes_of(data, overdue["example_id"])["late"].tolist() == [1]


def test_a_refused_arrival_that_comes_again_right_gives_the_label_it_then_says(
    data: Path, monkeypatch: pytest.MonkeyPatch, history: Settings, landed: pd.Series
) -> None:
    flight = landed["example_id"]
    arrival = rows(history.data, "raw/movements/*.parquet").query("example_id == @flight and kind == 'arrival'")
    known_at = pd.Timestamp("2013-01-04T01:00:00Z").as_unit("us")

    def again(new: pd.DataFrame) -> pd.DataFrame:
        old = arrival.astype(new.dtypes.to_dict()).assign(known_at=known_at)
        return pd.concat([new, old]).sort_values("known_at", kind="stable", ignore_index=True)

    with monkeypatch.context() as patched:
        spoil(patched, "movements", damaged(flight, "arrival"))
        pipeline.ingest(data, datetime(2013, 1, 4, tzinfo=UTC))
    spoil(monkeypatch, "movements", again)

    pipeline.ingest(data, datetime(2013, 1, 4, 2, tzinfo=UTC))
    pipeline.build(data, datetime(2013, 1, 4, 2, tzinfo=UTC))

    outcomes = outcomes_of(data, flight)
    assert outcomes["late"].tolist() == [0]
    assert outcomes["event_timestamp"].tolist() == [known_at]


@pytest.mark.parametrize("lacks", [["example_id"], ["delay_minutes"], ["known_at"], ["known_at", "example_id"]])
def test_when_no_report_of_the_day_could_be_read_no_flight_of_it_counts_as_unheard_of(
    data: Path, monkeypatch: pytest.MonkeyPatch, lacks: list[str]
) -> None:
    spoil(monkeypatch, "movements", lambda rows: rows.drop(columns=lacks))

    pipeline.ingest(data, datetime(2013, 1, 1, 23, tzinfo=UTC))
    pipeline.build(data, datetime(2013, 1, 1, 23, tzinfo=UTC))

    late = [len(pq.read_table(path)) for path in (data / "features" / "flight_outcomes").glob("*.parquet")]
    assert sum(late) < 350  # those that were overdue before their report came, of some 500


def test_rows_that_come_again_on_a_later_day_count_once(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source_folder: Path
) -> None:
    until = JANUARY + timedelta(days=1)
    once = with_source(tmp_path / "once", source_folder)
    for moment in (JANUARY, until):
        pipeline.ingest(once, moment)
        pipeline.build(once, moment)
    pipeline.ingest(data, JANUARY)
    pipeline.build(data, JANUARY)

    for table in ("schedules", "movements", "weather"):
        old = rows(data, f"raw/{table}/day=2013-01-02.parquet")

        def again(new: pd.DataFrame, old: pd.DataFrame = old) -> pd.DataFrame:
            first = pd.Timestamp("2013-01-04T00:00:00Z").as_unit("us")
            old = old.astype(new.dtypes.to_dict()).assign(known_at=first)
            return pd.concat([new, old]).sort_values("known_at", kind="stable", ignore_index=True)

        spoil(monkeypatch, table, again)
    report = pipeline.ingest(data, until)
    pipeline.build(data, until)

    assert sum(arrivals.quarantined for arrivals in report.tables.values()) == 0
    assert len(rows(data, "raw/schedules/*.parquet")) > len(rows(once, "raw/schedules/*.parquet"))
    ours, theirs = tables(data, "features"), tables(once, "features")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equals(theirs[name])] == []


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
