"""The feature store as the rest of the system uses it: registration, freshness, and law 2 on a thousand real flights."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.exceptions import RequestValidationError
from feast import ValueType

from evergreen.adapters import feature_tables
from evergreen.adapters.feast import Features, _without_nan
from evergreen.adapters.online.view import StoredView
from evergreen.adapters.service_plan import ServicePlan
from evergreen.errors import ConfigurationError, DataError, FeatureServiceMissing
from evergreen.settings import ROOT, Settings
from evergreen.spec import ModelSpec, load_spec
from evergreen.types import Window
from serving.columns import columns_of
from serving.features import needs
from serving.schemas import Row
from stack.ports import free_port
from tests.flights_history import END, features, history

SERVICE = "flight_delay"
DOMAIN = "flights"
MOMENTS = [
    datetime(2013, 2, 8, 20, 7, tzinfo=UTC),  # a storm begins
    datetime(2013, 2, 9, 14, 0, tzinfo=UTC),  # and has closed the airports
    datetime(2013, 2, 10, 4, 30, tzinfo=UTC),  # night
    datetime(2013, 2, 20, 12, 59, 59, tzinfo=UTC),
    datetime(2013, 2, 27, 23, 15, tzinfo=UTC),
]


def a_store(history: Settings, home: Path, **settings: Any) -> Features:
    """A store of its own over the tables of `history`."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "data").symlink_to(history.data)
    features = Features(Settings(home=home, **settings))
    features.apply()
    return features


@pytest.fixture
def spec(history: Settings) -> ModelSpec:
    return load_spec(history.models_dir / "flight_delay.toml")


@pytest.fixture
def fresh(history: Settings, tmp_path: Path) -> Features:
    """Nothing is materialized yet."""
    return a_store(history, tmp_path / "home")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that tests may empty: the one named for them, or one of their own."""
    if named := os.environ.get("EVERGREEN_TEST_REDIS"):
        yield named
        return
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no redis-server here")
        pytest.skip("no redis-server here, and none is named (EVERGREEN_TEST_REDIS=HOST:PORT,db=NUMBER)")
    port = free_port("127.0.0.1")
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    folder = tmp_path_factory.mktemp("redis")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert any("Ready to accept connections" in line for line in server.stdout)
        yield f"127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
def on_redis(history: Settings, tmp_path: Path, redis_url: str) -> Iterator[Features]:
    redis = pytest.importorskip("redis")
    address, _, database = redis_url.partition(",db=")
    host, _, port = address.partition(":")
    client = redis.Redis(host=host, port=int(port), db=int(database or 0))
    client.flushdb()
    yield a_store(history, tmp_path / "home", online_store="redis", redis_url=redis_url)
    client.flushdb()
    client.close()


def asked_at(history: Settings, spec: ModelSpec, moment: datetime, count: int) -> pd.DataFrame:
    """`count` flights that leave from two hours after `moment` on, all asked about at that moment."""
    window = Window(start=moment, end=moment + timedelta(hours=20))
    examples = feature_tables.read_examples(history.data, spec, window, END).head(count)
    assert len(examples) == count
    return examples.assign(event_timestamp=pd.Timestamp(moment))


def columns(examples: pd.DataFrame, features: Features) -> dict[str, list[Any]]:
    names = features.needs(SERVICE)
    return {name: [as_python(value) for value in examples[name]] for name in names}


def as_python(value: Any) -> Any:
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def mismatches(features: Features, examples: pd.DataFrame, moment: datetime) -> list[str]:
    trained = features.historical(SERVICE, examples)
    served = features.online(SERVICE, columns(examples, features), moment)
    faults = []
    for name, values in served.columns.items():
        for row, (online, offline) in enumerate(zip(values, trained[name], strict=True)):
            if not (online is None and pd.isna(offline)) and online != offline:
                faults.append(f"{examples['example_id'].iloc[row]} {name}: served {online}, trained on {offline}")
    return faults


def test_a_thousand_served_rows_equal_their_training_rows(history: Settings, spec: ModelSpec, fresh: Features) -> None:
    for moment in MOMENTS:
        fresh.materialize(DOMAIN, moment)
        assert mismatches(fresh, asked_at(history, spec, moment, 200), moment) == []


def test_values_are_read_while_others_are_written(history: Settings, spec: ModelSpec, fresh: Features) -> None:
    fresh.materialize(DOMAIN, MOMENTS[0])
    rows = columns(asked_at(history, spec, MOMENTS[0], 10), fresh)
    before = fresh.online(SERVICE, rows, MOMENTS[0])
    with closing(sqlite3.connect(fresh._store.config.online_store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # as a materialization does once it no longer fits into memory, and to commit

        assert fresh.online(SERVICE, rows, MOMENTS[0]) == before


def test_a_text_for_a_key_that_is_a_whole_number_is_refused_before_it_is_looked_up(fresh: Features) -> None:
    stored = StoredView("visits", ("customer", "city"), (ValueType.INT64, ValueType.STRING), ("count",), 60.0)
    fresh._plans["visits"] = ServicePlan((stored,), (), {}, {})
    kinds = needs(fresh, "visits")

    assert kinds == {"customer": "integer", "city": "key"}
    assert columns_of([Row(customer=7, city="B")], kinds, max_rows=1) == {"customer": [7], "city": ["B"]}
    with pytest.raises(RequestValidationError, match="should be a whole number"):
        columns_of([Row(customer="abc", city="B")], kinds, max_rows=1)


def test_rows_served_from_redis_equal_their_training_rows(
    history: Settings, spec: ModelSpec, on_redis: Features
) -> None:
    for moment in MOMENTS[:2]:
        on_redis.materialize(DOMAIN, moment)
        assert mismatches(on_redis, asked_at(history, spec, moment, 100), moment) == []


def test_values_that_outlived_their_view_are_not_served_and_neither_is_what_is_made_of_them(
    history: Settings, spec: ModelSpec, fresh: Features
) -> None:
    moment = MOMENTS[3]
    fresh.materialize(DOMAIN, moment)
    examples = asked_at(history, spec, moment, 50)

    later = fresh.online(SERVICE, columns(examples, fresh), moment + timedelta(hours=37))

    assert all({"origin_weather", "origin_congestion", "aircraft_last_leg"} <= set(views) for views in later.stale)
    assert not any("route_rates" in views for views in later.stale[:1])
    for name in ("temperature", "overdue_departures", "leg_delay", "hours_since_leg", "leg_slack_minutes"):
        assert set(later.columns[name]) == {None}
    assert None not in later.columns["local_hour"]
    assert any(value is not None for value in later.columns["aircraft_age_years"])


def test_values_from_after_the_moment_asked_about_are_not_served(
    history: Settings, spec: ModelSpec, fresh: Features
) -> None:
    fresh.materialize(DOMAIN, MOMENTS[3])
    examples = asked_at(history, spec, MOMENTS[1], 20)

    answer = fresh.online(SERVICE, columns(examples, fresh), MOMENTS[1])

    assert all({"origin_weather", "origin_congestion", "carrier_origin_rates"} <= set(views) for views in answer.stale)
    assert set(answer.columns["carrier_late_rate_7d"]) == {None}


def test_an_unknown_airport_is_answered_from_nothing_and_named(fresh: Features) -> None:
    fresh.materialize(DOMAIN, MOMENTS[0])
    rows: dict[str, list[Any]] = {
        "origin": ["EWR", "XXX", None],
        "dest": ["ORD", "ORD", "ORD"],
        "carrier": ["UA", "UA", "UA"],
        "tailnum": ["N14228", "N14228", "N14228"],
        "scheduled_departure": ["2013-02-08T22:07:00+00:00"] * 3,
        "scheduled_arrival": ["2013-02-09T00:37:00+00:00"] * 3,
        "distance": [719, 719, 719],
    }

    answer = fresh.online(SERVICE, rows, MOMENTS[0])

    assert answer.unknown == [False, True, True]
    assert answer.columns["temperature"][0] is not None
    assert answer.columns["temperature"][1:] == [None, None]
    assert answer.columns["block_minutes"] == [150.0] * 3
    assert "origin_weather" in answer.stale[1]
    assert "origin_weather" not in answer.stale[0]


@pytest.mark.parametrize(
    ("change", "unknown"),
    [
        ({"origin": "LGA", "dest": "BQN"}, False),  # flown from the other two airports only
        ({"origin": "JFK", "carrier": "YV"}, False),  # flies from LaGuardia only
        ({"dest": "XXX"}, False),  # nothing tells it from a new route
        ({"tailnum": "N0NE"}, True),
        ({"origin": "XXX"}, True),
        ({"origin": "XXX", "dest": "XXX"}, True),
    ],
)
def test_unknown_is_a_key_never_seen_in_its_own_view_and_not_a_new_combination(
    fresh: Features, change: dict[str, str], unknown: bool
) -> None:
    fresh.materialize(DOMAIN, MOMENTS[0])
    times = {"scheduled_departure": ["2013-02-08T22:07:00Z"], "scheduled_arrival": ["2013-02-09T00:37:00Z"]}
    keys = {"origin": "EWR", "dest": "ORD", "carrier": "UA", "tailnum": "N14228"} | change
    rows: dict[str, list[Any]] = {"distance": [719.0], **times, **{key: [value] for key, value in keys.items()}}

    answer = fresh.online(SERVICE, rows, MOMENTS[0])

    assert answer.unknown == [unknown]
    if "tailnum" not in change:  # the pair was never stored, and that is said
        assert {"route_rates", "carrier_origin_rates"} & set(answer.stale[0])


def test_an_online_store_does_not_go_back_in_time(history: Settings, spec: ModelSpec, fresh: Features) -> None:
    fresh.materialize(DOMAIN, MOMENTS[1])
    fresh.materialize(DOMAIN, MOMENTS[0])

    assert mismatches(fresh, asked_at(history, spec, MOMENTS[1], 20), MOMENTS[1]) == []


def test_applying_again_keeps_what_was_materialized(history: Settings, spec: ModelSpec, fresh: Features) -> None:
    fresh.materialize(DOMAIN, MOMENTS[0])
    fresh.apply()

    assert mismatches(fresh, asked_at(history, spec, MOMENTS[0], 20), MOMENTS[0]) == []


def test_two_installations_in_one_process_do_not_know_of_each_other(
    history: Settings, spec: ModelSpec, fresh: Features, tmp_path: Path
) -> None:
    fresh.materialize(DOMAIN, MOMENTS[3])
    fresh.apply()
    other = a_store(history, tmp_path / "other")

    other.materialize(DOMAIN, MOMENTS[0])

    assert mismatches(other, asked_at(history, spec, MOMENTS[0], 20), MOMENTS[0]) == []


def test_another_process_of_the_same_installation_answers_the_same(
    history: Settings, spec: ModelSpec, fresh: Features, tmp_path: Path
) -> None:
    fresh.materialize(DOMAIN, MOMENTS[0])
    other = Features(Settings(home=tmp_path / "home"))

    assert mismatches(other, asked_at(history, spec, MOMENTS[0], 20), MOMENTS[0]) == []


def test_inputs_are_the_services_features_and_then_the_entities_named(features: Features) -> None:
    inputs = features.inputs(SERVICE, ["carrier", "origin", "dest"])

    assert list(inputs)[-3:] == ["carrier", "origin", "dest"]
    assert inputs["carrier"] == "categorical"
    assert inputs["temperature"] == inputs["leg_slack_minutes"] == "numeric"
    assert "leg_ready_at" not in inputs  # a moment: read for the on-demand view only
    assert len(inputs) == 51


def test_a_service_that_does_not_exist_is_refused_with_those_that_do(features: Features) -> None:
    with pytest.raises(
        FeatureServiceMissing, match=r"no feature service 'flight_delays'.*known services: \['flight_delay'\]"
    ):
        features.inputs("flight_delays", [])


@pytest.mark.parametrize("other", [1.5, None, "text", [float("nan")], float("inf"), MOMENTS[0]])
def test_a_feature_that_is_no_number_is_missing_whatever_stands_beside_it(other: Any) -> None:
    columns = {"some": [float("nan"), 2.0, other], "beside": [other, None, 0.0], "opposed": [float("-inf"), 1.0, 1.0]}

    assert _without_nan(columns) == {**columns, "some": [None, 2.0, other]}


def test_a_row_without_a_column_it_needs_is_refused_by_name(features: Features) -> None:
    with pytest.raises(DataError, match=r"needs the columns \['tailnum', 'scheduled_departure'"):
        features.online(SERVICE, {"origin": ["EWR"], "dest": ["ORD"], "carrier": ["UA"]}, END)


@pytest.mark.parametrize(
    ("column", "value"), [("scheduled_departure", "yesterday"), ("distance", "far"), ("distance", None)]
)
def test_a_value_that_cannot_be_read_is_refused_by_name(fresh: Features, column: str, value: Any) -> None:
    fresh.materialize(DOMAIN, MOMENTS[0])
    rows = {"origin": ["EWR"], "dest": ["ORD"], "carrier": ["UA"], "tailnum": ["N14228"]}
    times = {"scheduled_departure": ["2013-02-08T22:07:00Z"], "scheduled_arrival": ["2013-02-09T00:37:00Z"]}

    with pytest.raises(DataError, match=f"request column '{column}'"):
        fresh.online(SERVICE, rows | times | {"distance": [719.0]} | {column: [value]}, MOMENTS[0])


def test_a_feature_repository_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="EVERGREEN_FEATURE_REPO"):
        Features(Settings(home=tmp_path, feature_repo=tmp_path / "nowhere"))


def test_a_feature_repository_whose_name_another_has_in_this_process_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo")

    with pytest.raises(ConfigurationError, match=f"'feature_repo' was imported from {ROOT / 'feature_repo'}"):
        Features(Settings(home=tmp_path, feature_repo=tmp_path / "feature_repo")).apply()


def test_a_pipeline_is_imported_from_the_repository_that_is_set_whatever_is_on_pythons_path(tmp_path: Path) -> None:
    repo = shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo")
    program = (
        "from evergreen.wiring import wiring; wire = wiring(); "
        "pipeline = wire.pipeline(wire.spec('flight_delay')); print(pipeline.__file__, pipeline.source.__file__)"
    )

    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"EVERGREEN_FEATURE_REPO": str(repo)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.split() == [str(repo / "flights" / name) for name in ("pipeline.py", "source.py")]


def test_the_moments_of_all_refreshes_are_known(fresh: Features) -> None:
    assert fresh.refreshes(SERVICE) == ()

    for moment in MOMENTS[:2]:
        fresh.materialize(DOMAIN, moment)

    assert fresh.refreshes(SERVICE) == tuple(MOMENTS[:2])


def two_domains(folder: Path) -> Path:
    """A feature repository of `bikes` and `trams`: a view of their name each, of one key and one value."""
    repo = folder / f"repo_{folder.name}"  # a name of its own: a process imports a package once
    for domain in ("bikes", "trams"):
        (repo / domain).mkdir(parents=True)
        (repo / domain / "definitions.py").write_text(
            f"""
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

key = Entity(name="{domain}_key", value_type=ValueType.STRING)
view = FeatureView(
    name="{domain}",
    entities=[key],
    schema=[Field(name="{domain}_key", dtype=String), Field(name="{domain}_value", dtype=Float64)],
    source=FileSource(name="{domain}", path="features/{domain}/*.parquet", timestamp_field="event_timestamp"),
)
service = FeatureService(name="{domain}", features=[view])
"""
        )
    shutil.copy(ROOT / "feature_repo" / "feature_store.yaml", repo)
    return repo


def build(data: Path, domain: str, at: datetime, value: float) -> None:
    """The feature table of one of `two_domains` gets its row of a day."""
    folder = data / "features" / domain
    folder.mkdir(parents=True, exist_ok=True)
    row = {f"{domain}_key": ["a"], f"{domain}_value": [value], "event_timestamp": pd.to_datetime([at]).as_unit("us")}
    pd.DataFrame(row).to_parquet(folder / f"day={at:%Y-%m-%d}.parquet", index=False)


def test_a_domain_is_served_what_was_built_after_another_was_brought_further(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", feature_repo=two_domains(tmp_path))
    features = Features(settings)
    features.apply()
    moment, row = MOMENTS[0], {"trams_key": ["a"]}

    build(settings.data, "bikes", moment - timedelta(hours=2), 1.0)
    features.materialize("bikes", moment - timedelta(hours=1))  # of trams there is no table yet
    build(settings.data, "trams", moment - timedelta(days=2), 2.0)
    features.materialize("trams", moment - timedelta(days=1))
    features.materialize("bikes", moment)
    build(settings.data, "trams", moment - timedelta(hours=2), 3.0)
    features.materialize("trams", moment)

    assert features.online("trams", row, moment).columns == {"trams_value": [3.0]}
    assert features.online("bikes", {"bikes_key": ["a"]}, moment).columns == {"bikes_value": [1.0]}
