"""The offline store, through Feast, against a join that looks at every row."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    RequestSource,
    ValueType,
)
from feast.infra.registry import proto_registry_utils
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, String
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evergreen.adapters.asof_store import AsofOfflineStore
from evergreen.errors import DataError

START = datetime(2013, 1, 1, tzinfo=UTC)
STEP = timedelta(hours=6)
FOREVER = timedelta(0)
Row = dict[str, Any]

airport = Entity(name="airport", value_type=ValueType.STRING)
airline = Entity(name="airline", value_type=ValueType.STRING)


def a_view(name: str, keys: list[Entity], ttl: timedelta, **source: Any) -> FeatureView:
    return FeatureView(
        name=name,
        entities=keys,
        ttl=ttl,
        schema=[*(Field(name=key.name, dtype=String) for key in keys), Field(name=f"{name}_value", dtype=Float64)],
        source=FileSource(name=name, path="rows/*.parquet", timestamp_field="event_timestamp", **source),
    )


MICROSECONDS = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    {
        "airport": pa.string(),
        "airline": pa.string(),
        "event_timestamp": MICROSECONDS,
        "created": MICROSECONDS,
        "value": pa.float64(),
    }
)
VALUE = {"value": "one_value"}
VIEWS = [
    a_view("one", [airport], timedelta(hours=12), field_mapping=VALUE),
    a_view("two", [airport, airline], timedelta(hours=6), field_mapping={"value": "two_value"}),
    a_view("forever", [airport], FOREVER, field_mapping={"value": "forever_value"}),
    a_view(
        "made",
        [airline],
        timedelta(hours=18),
        created_timestamp_column="created",
        field_mapping={"value": "made_value"},
    ),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    home = tmp_path_factory.mktemp("asof")
    config = RepoConfig(
        project="asof",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{home / 'registry.db'}"},
        offline_store={"type": "evergreen.adapters.asof_store.AsofOfflineStore", "root": str(home)},
        online_store={"type": "sqlite", "path": str(home / "online.db")},
        materialization={"pull_latest_features": True},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([airport, airline, *VIEWS, FeatureService(name="all", features=list(VIEWS))])
    return store


@pytest.fixture(scope="module")
def keep(store: FeatureStore) -> Callable[[Sequence[Row]], None]:
    """Replaces the rows of the source: a file a day, as feature tables are kept."""
    folder = Path(store.config.offline_store.root) / "rows"

    def write(rows: Sequence[Row]) -> None:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        frame = pd.DataFrame(rows).astype(
            {"event_timestamp": "datetime64[us, UTC]", "created": "datetime64[us, UTC]", "value": "float64"}
        )
        for day, part in frame.groupby(frame["event_timestamp"].dt.date):
            assert isinstance(day, date)
            table = pa.Table.from_pandas(part, schema=SCHEMA, preserve_index=False)
            pq.write_table(table, folder / f"day={day.isoformat()}.parquet")

    return write


def a_row(
    hours: float, value: float | None, *, airport: str | None = "JFK", airline: str | None = "B6", created: float = 0
) -> Row:
    return {
        "airport": airport,
        "airline": airline,
        "event_timestamp": START + timedelta(hours=hours),
        "created": START + timedelta(hours=created),
        "value": value,
    }


def asked(hours: float, airport: str | None = "JFK", airline: str | None = "B6") -> Row:
    return {"airport": airport, "airline": airline, "event_timestamp": START + timedelta(hours=hours)}


def answers(store: FeatureStore, questions: Sequence[Row], view: str) -> list[float | None]:
    frame = pd.DataFrame(questions)
    answer = store.get_historical_features(frame, [f"{view}:{view}_value"]).to_df()
    return [None if pd.isna(value) else float(value) for value in answer[f"{view}_value"]]


def by_looking_at_every_row(rows: Sequence[Row], question: Row, view: FeatureView) -> float | None:
    """Feast's documented rules, one row after the other."""
    keys = [entity.name for entity in view.entity_columns]
    moment = question["event_timestamp"]
    known = [
        row
        for row in rows
        if all(row[key] is not None and row[key] == question[key] for key in keys)
        and row["event_timestamp"] <= moment
        and (view.ttl == FOREVER or row["event_timestamp"] >= moment - view.ttl)
    ]
    last = view.batch_source.created_timestamp_column

    def rank(row: Row) -> tuple[Any, ...]:
        value = row["value"]
        return row["event_timestamp"], row["created"] if last else 0, value is not None, value or 0.0

    return max(known, key=rank)["value"] if known else None


AIRPORTS = st.sampled_from(["JFK", "EWR", None])
AIRLINES = st.sampled_from(["B6", "UA", None])
# Few moments on a coarse grid: ties, ages of exactly a TTL and empty days come up all the time.
MOMENTS = st.integers(0, 20).map(lambda n: START + n * STEP)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "airport": AIRPORTS,
            "airline": AIRLINES,
            "event_timestamp": MOMENTS,
            "created": MOMENTS,
            "value": st.one_of(st.none(), st.integers(0, 9).map(float)),
        }
    ),
    min_size=1,
    max_size=25,
)
QUESTIONS = st.lists(
    st.fixed_dictionaries({"airport": AIRPORTS, "airline": AIRLINES, "event_timestamp": MOMENTS}),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, questions=QUESTIONS)
def test_the_join_finds_what_looking_at_every_row_finds(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None], rows: list[Row], questions: list[Row]
) -> None:
    keep(rows)
    answer = store.get_historical_features(pd.DataFrame(questions), store.get_feature_service("all")).to_df()

    assert len(answer) == len(questions)
    for view in VIEWS:
        expected = [by_looking_at_every_row(rows, question, view) for question in questions]
        found = [None if pd.isna(value) else float(value) for value in answer[f"{view.name}_value"]]
        assert found == expected, view.name


def test_a_value_of_the_very_moment_counts_as_known(store: FeatureStore, keep: Callable[[Sequence[Row]], None]) -> None:
    keep([a_row(1, 1.0), a_row(2, 2.0)])

    assert answers(store, [asked(2), asked(1.999)], "one") == [2.0, 1.0]


def test_a_value_as_old_as_the_ttl_is_used_and_a_microsecond_older_is_not(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(0, 1.0)])
    at_the_edge = asked(12)
    past_it = asked(12) | {"event_timestamp": START + timedelta(hours=12, microseconds=1)}

    assert answers(store, [at_the_edge, past_it], "one") == [1.0, None]


def test_a_stale_value_does_not_let_an_older_one_through_nor_drop_the_row(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(0, 1.0), a_row(1, 2.0)])

    assert answers(store, [asked(50), asked(1)], "one") == [None, 2.0]


def test_a_correction_counts_from_when_it_was_known(store: FeatureStore, keep: Callable[[Sequence[Row]], None]) -> None:
    observed, corrected = a_row(1, 1.0), a_row(3, 9.0)
    keep([corrected, observed])

    assert answers(store, [asked(2), asked(3)], "one") == [1.0, 9.0]


def test_of_rows_that_tie_the_one_created_last_counts(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(1, 7.0, created=3), a_row(1, 8.0, created=2), a_row(1, 9.0, created=1)])

    assert answers(store, [asked(2)], "made") == [7.0]


def test_of_rows_that_tie_one_feature_alone_is_of_the_row_that_is_served(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(1, 9.0, airline="B6"), a_row(1, 1.0, airline="UA")])
    ranked = FeatureView(
        name="ranked",
        entities=[airport],
        ttl=FOREVER,
        schema=[
            Field(name="airport", dtype=String),
            Field(name="by", dtype=String),
            Field(name="ranked_value", dtype=Float64),
        ],
        source=FileSource(
            name="ranked",
            path="rows/*.parquet",
            timestamp_field="event_timestamp",
            field_mapping={"airline": "by", "value": "ranked_value"},
        ),
    )
    store.apply([ranked])

    store.materialize(START, START + timedelta(hours=2), feature_views=["ranked"])

    served = store.get_online_features(["ranked:ranked_value"], [{"airport": "JFK"}]).to_dict()
    assert served["ranked_value"] == [1.0]
    assert answers(store, [asked(2)], "ranked") == [1.0]


def test_rows_that_ask_the_same_are_each_answered_and_keep_their_order_and_columns(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(1, 1.0), a_row(1, 5.0, airport="EWR")])
    questions = pd.DataFrame([asked(2), asked(2, airport="EWR"), asked(2), asked(1.5)])
    questions["note"] = ["c", "b", "a", "d"]
    shuffled_index = questions.set_index(pd.Index([9, 3, 3, 0]))

    answer = store.get_historical_features(shuffled_index, ["one:one_value"]).to_df()

    assert answer["note"].tolist() == ["c", "b", "a", "d"]
    assert answer["one_value"].tolist() == [1.0, 5.0, 1.0, 1.0]


def test_full_feature_names_carry_the_view(store: FeatureStore, keep: Callable[[Sequence[Row]], None]) -> None:
    keep([a_row(1, 1.0)])
    questions = pd.DataFrame([asked(2)])

    answer = store.get_historical_features(questions, ["one:one_value", "forever:forever_value"], True).to_df()

    assert answer[["one__one_value", "forever__forever_value"]].to_numpy().tolist() == [[1.0, 1.0]]


def test_an_on_demand_view_sees_the_joined_values_and_the_request(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(1, 2.0)])
    request = RequestSource(name="asked_for", schema=[Field(name="factor", dtype=Float64)])

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[request, VIEWS[0]], schema=[Field(name="product", dtype=Float64)], mode="python"
    )
    def multiplied(inputs: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(inputs["one_value"], inputs["factor"], strict=True)
        return {"product": [None if value is None else value * factor for value, factor in pairs]}

    with pytest.warns(RuntimeWarning, match="experimental"):
        store.apply([multiplied])
    questions = pd.DataFrame([asked(2), asked(0)]).assign(factor=[10.0, 10.0])

    # As Feast's cache may be: kept under the id() of a registry, which another may have after it.
    with patch.object(proto_registry_utils, "list_on_demand_feature_views", return_value=[]):
        answer = store.get_historical_features(questions, ["multiplied:product"]).to_df()

    assert answer["product"].iloc[0] == 20.0
    assert pd.isna(answer["product"].iloc[1])


def test_only_the_days_that_can_matter_are_opened(store: FeatureStore, keep: Callable[[Sequence[Row]], None]) -> None:
    keep([a_row(1, 1.0), a_row(49, 3.0), a_row(97, 5.0)])
    folder = Path(store.config.offline_store.root) / "rows"
    for day in ("2013-01-01", "2013-01-05"):
        (folder / f"day={day}.parquet").write_bytes(b"not a Parquet file")

    assert answers(store, [asked(50)], "one") == [3.0]


def test_a_source_without_files_says_what_to_do(store: FeatureStore, keep: Callable[[Sequence[Row]], None]) -> None:
    keep([a_row(1, 1.0)])
    for path in (Path(store.config.offline_store.root) / "rows").iterdir():
        path.unlink()

    with pytest.raises(DataError, match="build its feature table first"):
        answers(store, [asked(2)], "one")


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (pd.DataFrame([asked(2)])[:0], "no entity rows"),
        (pd.DataFrame([asked(2), asked(2) | {"event_timestamp": pd.NaT}]), "1 entity rows have no timestamp"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None], questions: pd.DataFrame, message: str
) -> None:
    keep([a_row(1, 1.0)])

    with pytest.raises(DataError, match=message):
        store.get_historical_features(questions, ["one:one_value"]).to_df()


def test_materialization_takes_the_newest_row_of_each_key_in_a_span_with_both_ends(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(0, 1.0), a_row(6, 2.0), a_row(12, 3.0), a_row(3, 4.0, airport="EWR"), a_row(6, 0.5)])
    view = VIEWS[0]

    def pulled(first: float, last: float) -> dict[str, float]:
        job = AsofOfflineStore.pull_latest_from_table_or_query(
            store.config, view.batch_source, ["airport"], ["value"], "event_timestamp", None,
            START + timedelta(hours=first), START + timedelta(hours=last),
        )  # fmt: skip
        rows = job.to_arrow().to_pylist()
        return {row["airport"]: row["value"] for row in rows}

    assert pulled(0, 6) == {"JFK": 2.0, "EWR": 4.0}
    assert pulled(6, 12) == {"JFK": 3.0}
    assert pulled(7, 11) == {}


def test_a_row_without_a_key_is_not_materialized_and_does_not_stop_the_others(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(0, 1.0), a_row(0, 2.0, airport=None), a_row(0, 3.0, airline=None)])

    store.materialize(START, START + timedelta(hours=1), feature_views=["two"])

    served = store.get_online_features(["two:two_value"], [{"airport": "JFK", "airline": "B6"}]).to_dict()
    assert served["two_value"] == [1.0]


def test_pulling_everything_keeps_every_row_of_the_span(
    store: FeatureStore, keep: Callable[[Sequence[Row]], None]
) -> None:
    keep([a_row(0, 1.0), a_row(6, 2.0), a_row(12, 3.0)])

    job = AsofOfflineStore.pull_all_from_table_or_query(
        store.config, VIEWS[0].batch_source, ["airport"], ["value"], "event_timestamp", None, START + timedelta(hours=6)
    )

    assert sorted(job.to_arrow().column("value").to_pylist()) == [2.0, 3.0]
