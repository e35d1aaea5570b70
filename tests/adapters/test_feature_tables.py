"""Examples, outcomes and training sets read from feature tables."""

import shutil
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from evergreen.adapters import feature_tables
from evergreen.adapters.feast import Features
from evergreen.errors import DataError, LabelsNotReady
from evergreen.settings import Settings
from evergreen.spec import ModelSpec, load_spec
from evergreen.types import TrainingSet, Window
from tests.flights_history import END, features, history

AS_OF = datetime(2013, 1, 20, 11, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_spec(Settings().models_dir / "flight_delay.toml")


@pytest.fixture(scope="module")
def training_set(history: Settings, features: Features, spec: ModelSpec) -> TrainingSet:
    return feature_tables.build_training_set(history.data, spec, features, AS_OF)


def changed(spec: ModelSpec, table: str, **values: object) -> ModelSpec:
    return spec.model_copy(update={table: getattr(spec, table).model_copy(update=values)})


def test_examples_are_those_asked_about_in_the_window(history: Settings, spec: ModelSpec) -> None:
    window = Window(start=AS_OF - timedelta(hours=6), end=AS_OF)

    examples = feature_tables.read_examples(history.data, spec, window, END)

    assert (examples["event_timestamp"] == examples["scheduled_departure"] - pd.Timedelta(hours=2)).all()
    assert examples["event_timestamp"].between(window.start, window.end, inclusive="left").all()
    assert examples["example_id"].is_unique
    assert examples.equals(examples.sort_values(["event_timestamp", "example_id"], ignore_index=True))


def test_an_example_is_not_there_before_it_was_known(history: Settings, spec: ModelSpec) -> None:
    tomorrow = Window(start=AS_OF + timedelta(hours=20), end=AS_OF + timedelta(hours=30))

    known = feature_tables.read_examples(history.data, spec, tomorrow, AS_OF)
    later = feature_tables.read_examples(history.data, spec, tomorrow, END)

    assert 0 < len(known) < len(later)
    assert (known["scheduled_departure"] <= pd.Timestamp(AS_OF) + pd.Timedelta(hours=24)).all()


def test_outcomes_of_adjoining_windows_are_those_of_both_together_each_once(history: Settings, spec: ModelSpec) -> None:
    edges = [AS_OF - timedelta(days=2), AS_OF - timedelta(hours=31), AS_OF]
    parts = [
        feature_tables.read_outcomes(history.data, spec, Window(start=start, end=end)) for start, end in pairwise(edges)
    ]
    whole = feature_tables.read_outcomes(history.data, spec, Window(start=edges[0], end=edges[-1]))

    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert whole["example_id"].is_unique
    assert list(whole.columns) == ["example_id", "label", "label_timestamp"]
    assert set(whole["label"]) == {0, 1}


def test_a_training_set_holds_labels_known_in_time_only(training_set: TrainingSet) -> None:
    rows = feature_tables.load_training_set(training_set)
    start = pd.Timestamp(training_set.holdout.start)
    before = rows[rows["event_timestamp"] < start]

    assert (rows["label_timestamp"] <= pd.Timestamp(AS_OF)).all()
    assert (before["label_timestamp"] < start).all()
    assert len(rows) == training_set.rows
    assert len(rows) - len(before) == training_set.holdout_rows > 5_000
    assert list(rows.columns) == [
        "example_id",
        "event_timestamp",
        "label_timestamp",
        "label",
        "auxiliary",
        *training_set.features,
    ]


def test_a_training_set_built_again_is_the_same_file(
    history: Settings, features: Features, spec: ModelSpec, training_set: TrainingSet
) -> None:
    written = Path(training_set.uri).stat().st_mtime_ns

    again = feature_tables.build_training_set(history.data, spec, features, AS_OF)

    assert again == training_set
    assert Path(again.uri).stat().st_mtime_ns == written
    assert Path(again.uri).stem in training_set.digest


def test_what_became_known_later_does_not_change_a_training_set(
    history: Settings, tmp_path: Path, spec: ModelSpec, training_set: TrainingSet
) -> None:
    for table in (history.data / "features").iterdir():
        for path in table.iterdir():
            if path.stem < f"day={AS_OF:%Y-%m-%d}":
                (tmp_path / "data" / "features" / table.name).mkdir(parents=True, exist_ok=True)
                (tmp_path / "data" / "features" / table.name / path.name).symlink_to(path)
            elif path.stem == f"day={AS_OF:%Y-%m-%d}":
                rows = pd.read_parquet(path)
                rows[rows["event_timestamp"] <= pd.Timestamp(AS_OF)].to_parquet(
                    tmp_path / "data" / "features" / table.name / path.name, index=False
                )
    truncated = Features(Settings(home=tmp_path))
    truncated.apply()

    then = feature_tables.build_training_set(tmp_path / "data", spec, truncated, AS_OF)

    assert then.digest == training_set.digest


def test_an_altered_training_set_is_refused(training_set: TrainingSet, tmp_path: Path) -> None:
    rows = pd.read_parquet(training_set.uri)
    rows["label"] = rows["label"].where(rows.index != 17, 1 - rows["label"])
    rows.to_parquet(tmp_path / "altered.parquet", index=False)
    altered = training_set.model_copy(update={"uri": str(tmp_path / "altered.parquet")})

    with pytest.raises(DataError, match="was altered"):
        feature_tables.load_training_set(altered)


def test_a_digest_sees_values_and_names_and_not_the_encoding(training_set: TrainingSet, tmp_path: Path) -> None:
    rows = feature_tables.load_training_set(training_set)
    shutil.copy(training_set.uri, tmp_path / "copy.parquet")
    rows.to_parquet(tmp_path / "plain.parquet", index=False, compression=None, row_group_size=777)

    assert feature_tables.content_digest(pd.read_parquet(tmp_path / "plain.parquet")) == training_set.digest
    assert feature_tables.content_digest(rows.rename(columns={"humidity": "damp"})) != training_set.digest
    assert feature_tables.content_digest(rows[::-1]) != training_set.digest


def test_a_window_whose_outcomes_are_not_in_is_refused_with_counts(
    history: Settings, features: Features, spec: ModelSpec
) -> None:
    with pytest.raises(LabelsNotReady, match=r"of \d[\d,]* examples .* and 0 in it have outcomes"):
        feature_tables.build_training_set(
            history.data, changed(spec, "train", holdout_days=1), features, END + timedelta(days=3)
        )


def test_a_window_without_examples_is_refused(history: Settings, features: Features, spec: ModelSpec) -> None:
    with pytest.raises(DataError, match="has no row asked about in"):
        feature_tables.build_training_set(
            history.data,
            changed(spec, "train", history_start=date(2013, 5, 1)),
            features,
            datetime(2013, 6, 1, tzinfo=UTC),
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "tardy"}, r"table 'flight_outcomes' has no column \['tardy'\]"),
        ({"labels": "verdicts"}, r"table 'verdicts' has no rows up to"),
        ({"event_time": "takeoff"}, r"table 'flights' has no column \['takeoff'\]"),
        ({"slices": ("origin", "gate")}, r"columns \['gate'\] are not in 'flights'"),
    ],
)
def test_a_table_or_column_that_is_not_there_is_named(
    history: Settings, features: Features, spec: ModelSpec, values: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        feature_tables.build_training_set(history.data, changed(spec, "data", **values), features, AS_OF)


def test_auxiliary_labels_are_those_known_when_the_holdout_starts(
    history: Settings, features: Features, spec: ModelSpec, training_set: TrainingSet
) -> None:
    delays = spec.model_copy(update={"data": spec.data.model_copy(update={"auxiliary_label": "arrival_delay_minutes"})})

    rows = feature_tables.load_training_set(feature_tables.build_training_set(history.data, delays, features, AS_OF))
    start = training_set.holdout.start
    files = sorted((history.data / "features" / "flight_outcomes").glob("day=*.parquet"))
    told = pd.concat([pd.read_parquet(path) for path in files])
    told = told[(told["event_timestamp"] < pd.Timestamp(start)) & told["arrival_delay_minutes"].notna()]
    last = told.sort_values("event_timestamp").groupby("example_id")["arrival_delay_minutes"].last()

    pd.testing.assert_series_equal(
        rows.set_index("example_id")["auxiliary"], last.reindex(rows["example_id"]), check_names=False
    )
    before = rows[rows["event_timestamp"] < pd.Timestamp(start)]
    assert 0.9 < before["auxiliary"].notna().mean() < 1.0  # cancelled flights have none
    assert rows.loc[rows["event_timestamp"] >= pd.Timestamp(start), "auxiliary"].isna().all()


def test_what_was_asked_is_found_as_it_was_known_then_and_the_rest_is_left_out(
    history: Settings, spec: ModelSpec
) -> None:
    window = Window(start=AS_OF - timedelta(hours=6), end=AS_OF)
    examples = feature_tables.read_examples(history.data, spec, window, END)
    early = examples["event_timestamp"] - pd.Timedelta(minutes=30)
    asked = pd.DataFrame(
        {
            "prediction_id": [f"p{n}" for n in range(len(examples))],
            "example_id": examples["example_id"],
            "event_timestamp": early,
        }
    )
    stranger = pd.DataFrame({"prediction_id": ["px"], "example_id": ["nobody"], "event_timestamp": early[:1]})
    unborn = asked.iloc[:1].assign(prediction_id="py", event_timestamp=pd.Timestamp("2012-01-01", tz="UTC"))

    found = feature_tables.read_asked(history.data, spec, pd.concat([asked, stranger, unborn]))

    assert set(found["prediction_id"]) == set(asked["prediction_id"])
    both = found.merge(asked, on=["prediction_id", "example_id", "event_timestamp"])
    assert len(both) == len(asked)
    assert both["scheduled_departure"].notna().all()
