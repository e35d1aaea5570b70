"""The lean read of an online store gives what Feast's own read gives, value by value, on both stores."""

import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import redis.exceptions
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.online_stores.helpers import _mmh3
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, FeastType, Float32, Float64, Int32, Int64, String, UnixTimestamp
from redis.exceptions import ResponseError

from evergreen.adapters.feast import Features
from evergreen.adapters.online import read
from evergreen.adapters.online import redis as redis_read
from evergreen.adapters.online.on_demand import computing
from evergreen.adapters.online.read import FeastRead, SqliteRead, open_online_store
from evergreen.adapters.online.redis import RedisRead
from evergreen.adapters.online.usable import Usable, look_up
from evergreen.adapters.online.view import Held, Key, StoredView, Wanted
from evergreen.errors import OnlineStoreAway
from evergreen.settings import Settings
from evergreen.spec import ModelSpec, load_spec
from tests.adapters.test_feast import MOMENTS, SERVICE, asked_at, columns, fresh, on_redis, redis_url, spec
from tests.flights_history import history, source_folder

KNOWN = datetime(2013, 6, 1, 12, 0, 1, tzinfo=UTC)
TYPES: dict[str, FeastType] = {
    "double": Float64,
    "single": Float32,
    "whole": Int64,
    "small": Int32,
    "text": String,
    "yes": Bool,
    "moment": UnixTimestamp,
    "several": Array(Float64),
}


def a_view(
    name: str, keys: dict[str, FeastType], ttl: timedelta = timedelta(hours=1)
) -> tuple[FeatureView, StoredView]:
    kinds = {key: ValueType.STRING if kind == String else kind.to_value_type() for key, kind in keys.items()}
    view = FeatureView(
        name=name,
        entities=[Entity(name=key, value_type=kind) for key, kind in kinds.items()],
        ttl=ttl,
        schema=[Field(name=key, dtype=kind) for key, kind in keys.items()]
        + [Field(name=feature, dtype=kind) for feature, kind in TYPES.items()],
        source=FileSource(name=name, path=f"/nowhere/{name}.parquet", timestamp_field="event_timestamp"),
    )
    return view, StoredView(name, tuple(keys), tuple(kinds.values()), tuple(TYPES), ttl.total_seconds())


VIEWS = [
    a_view("of_text", {"city": String}),
    a_view("of_text_too", {"city": String}),
    a_view("of_number", {"customer": Int64}),
    a_view("of_small_number", {"shop": Int32}),
    a_view("of_several", {"zone": String, "customer": Int64, "city": String}),
]
VALUES: dict[str, list[Any]] = {
    "city": ["Zürich", "", "a" * 300, "B", "never"],
    "zone": ["x", "y", "x", "z", "never"],
    "customer": [0, -(2**63), 2**63 - 1, 7, 99],
    "shop": [0, 1, -5, 7, 99],
}
"""The last is in no table."""


def some_values(keys: list[str], draw: np.random.Generator) -> pd.DataFrame:
    count = 4
    frame = pd.DataFrame({key: VALUES[key][:count] for key in keys})
    frame["double"] = [0.0, -1.5, np.nan, 1e308]
    frame["single"] = draw.normal(size=count).astype(np.float32)
    frame["whole"] = pd.array([1, -(2**62), 0, None], dtype="Int64")
    frame["small"] = pd.array([1, 2, 3, None], dtype="Int32")
    frame["text"] = ["", "é", None, "long" * 100]
    frame["yes"] = [True, False, True, None]
    frame["moment"] = pd.Series(
        [pd.Timestamp(KNOWN), pd.Timestamp("1969-07-20", tz="UTC"), pd.NaT, pd.Timestamp(KNOWN)]
    )
    frame["several"] = pd.Series([[1.0, 2.0], [], [0.5], None])
    frame["event_timestamp"] = [pd.Timestamp(KNOWN) + timedelta(hours=hour) for hour in range(count)]
    return frame


def a_store(folder: Path, online: dict[str, str]) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="parity",
            provider="local",
            registry={"registry_type": "sql", "path": f"sqlite:///{folder / 'registry.db'}"},
            online_store=online,
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureStore]:
    online: dict[str, str] = {"type": "sqlite", "path": str(tmp_path / "online.db")}
    if request.param == "redis":
        request.getfixturevalue("on_redis")  # empty, and emptied afterwards
        online = {"type": "redis", "connection_string": request.getfixturevalue("redis_url")}
    store = a_store(tmp_path, online)
    entities = {one.name: one for view, _ in VIEWS for one in entities_of(view)}
    store.apply([*entities.values(), *(view for view, _ in VIEWS)])
    draw = np.random.default_rng(0)
    for view, stored in VIEWS:
        store.write_to_online_store(view.name, some_values(list(stored.keys), draw))
    yield store
    store.teardown()


def entities_of(view: FeatureView) -> list[Entity]:
    return [
        Entity(name=column.name, value_type=column.dtype.to_value_type(), join_keys=[column.name])
        for column in view.entity_columns
    ]


def plain(read: list[list[Held]]) -> list[list[Held]]:
    """NaN as a text, since it is not equal to itself."""
    return [[one and (one[0], tuple("NaN" if v != v else v for v in one[1])) for one in view] for view in read]


def wanted() -> list[Wanted]:
    asked: list[Wanted] = []
    for _, view in VIEWS:
        together: list[Key] = list(zip(*(VALUES[key] for key in view.keys), strict=True))
        asked.append((view, together))
    return asked


def test_every_type_of_value_and_key_is_read_as_feast_reads_it(store: FeatureStore) -> None:
    lean, through_feast = open_online_store(store), FeastRead(store)
    assert isinstance(lean, SqliteRead | RedisRead)

    read, theirs = lean.read(wanted()), through_feast.read(wanted())

    assert plain(read) == plain(theirs)
    assert [[one is None for one in view] for view in read] == [[False] * 4 + [True]] * len(VIEWS)


def test_two_keys_that_have_half_the_features_each_are_not_taken_for_one(store: FeatureStore) -> None:
    lean, (view, keys) = open_online_store(store), wanted()[0]
    if isinstance(lean, RedisRead):
        half = [name for name in TYPES if name < "n"]
        for key, gone in zip(keys, (half, set(TYPES) - set(half)), strict=False):
            lean._client.hdel(view.encoded(key) + b"parity", *[_mmh3(f"{view.name}:{name}") for name in gone])
    else:
        names = sorted(TYPES)
        with sqlite3.connect(store.config.online_store.path) as database:
            database.execute(f"DELETE FROM parity_{view.name} WHERE entity_key = ?", [view.encoded(keys[2])])
            for key, gone in (
                (min(keys[:2], key=view.encoded), names[3:]),
                (max(keys[:2], key=view.encoded), names[:3]),
            ):
                marks = ",".join("?" * len(gone))
                database.execute(
                    f"DELETE FROM parity_{view.name} WHERE entity_key = ? AND feature_name IN ({marks})",
                    [view.encoded(key), *gone],
                )
        database.close()

    read = lean.read([(view, keys[:2])])

    assert plain(read) == plain(FeastRead(store).read([(view, keys[:2])]))
    assert all(held is not None and None in held[1] for held in read[0])


def test_a_view_of_which_some_features_are_read_gives_those_in_the_order_asked(store: FeatureStore) -> None:
    lean, (view, keys) = open_online_store(store), wanted()[0]
    some = StoredView(view.name, view.keys, view.key_types, ("yes", "double", "text"), view.ttl_seconds)

    assert plain(lean.read([(some, keys)])) == plain(FeastRead(store).read([(some, keys)]))


def test_more_keys_than_a_statement_takes_are_asked_for_in_several(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lean = open_online_store(store)
    asked = [(view, keys) for view, keys in wanted() if view.name != "of_small_number"]  # which Feast reads
    whole = lean.read(asked)

    monkeypatch.setattr(read, "SQLITE_MANY", 2)
    monkeypatch.setattr(read, "SQLITE_VARIABLES", 2)

    assert plain(lean.read(asked)) == plain(whole)
    assert [len(held) for held in whole] == [5] * len(asked)


def test_a_view_wider_than_a_statement_is_read_through_feast(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_online_store(store).read(wanted())

    monkeypatch.setattr(read, "SQLITE_FEATURES", 3)

    assert plain(open_online_store(store).read(wanted())) == plain(whole)


def test_a_connection_that_the_server_closed_is_made_again(store: FeatureStore) -> None:
    lean = open_online_store(store)
    if not isinstance(lean, RedisRead):
        pytest.skip("SQLite is a file")
    asked = wanted()[:1]
    before = lean.read(asked)
    connection = lean._connection()
    connection.send_command("CLIENT", "ID")

    assert lean._client.client_kill_filter(_id=connection.read_response()) == 1

    assert plain(lean.read(asked)) == plain(before)
    assert lean._connection() is connection


@pytest.mark.parametrize("hangs", [True, False])
def test_a_redis_that_hangs_or_is_gone_is_away_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(redis_read, "ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        if not hangs:
            silent.close()
        online = {"type": "redis", "connection_string": address}
        lean = open_online_store(a_store(tmp_path, online))

        for _ in range(2):
            with pytest.raises(OnlineStoreAway, match=r"Redis, does not answer: (Timeout|Error 111)"):
                lean.read(wanted()[:1])


def test_a_sqlite_that_is_locked_is_away_and_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    lean = open_online_store(a_store(tmp_path, {"type": "sqlite", "path": str(path)}))
    began = time.monotonic()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(OnlineStoreAway, match="SQLite, does not answer: database is locked"):
            lean.read(wanted()[:1])

    assert time.monotonic() - began < 3


@pytest.mark.parametrize("error", [redis.exceptions.ConnectionError("gone"), redis.exceptions.TimeoutError("hangs")])
def test_a_redis_that_feast_reads_is_away_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str, error: Exception
) -> None:
    lean = open_online_store(a_store(tmp_path, {"type": "redis", "connection_string": redis_url}))
    monkeypatch.setattr(FeatureStore, "get_online_features", Mock(side_effect=error))
    of_small_number = [one for one in wanted() if one[0].name == "of_small_number"]

    with pytest.raises(OnlineStoreAway, match=r"does not answer: (gone|hangs)"):
        lean.read(of_small_number)


def test_a_sqlite_that_feast_reads_is_away_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = sqlite3.OperationalError("database is locked")
    monkeypatch.setattr(FeatureStore, "get_online_features", Mock(side_effect=locked))

    with pytest.raises(OnlineStoreAway, match="does not answer: database is locked"):
        FeastRead(a_store(tmp_path, {"type": "sqlite", "path": str(tmp_path / "online.db")})).read(wanted()[:1])


def test_what_failed_half_way_leaves_no_answer_for_the_next(store: FeatureStore) -> None:
    lean = open_online_store(store)
    if not isinstance(lean, RedisRead):
        pytest.skip("SQLite is a file")
    asked = wanted()[:1]
    before = lean.read(asked)
    name = asked[0][0].encoded(("gone",)) + b"parity"
    lean._client.set(name, "no hash")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        lean.read([(asked[0][0], [("gone",), *asked[0][1]])])

    lean._client.delete(name)
    assert plain(lean.read(asked)) == plain(before)


def test_on_demand_features_are_what_feast_computes() -> None:
    stored, _ = VIEWS[0]

    def twice(inputs: dict[str, Any]) -> dict[str, Any]:
        both = zip(inputs["of_text__double"], inputs["double"], strict=True)
        return {"sum": [one + other for one, other in both], "not_declared": [0.0, 0.0]}

    view = on_demand_feature_view(
        sources=[stored[["double"]]], schema=[Field(name="sum", dtype=Float64)], mode="python", name="twice"
    )(twice)
    columns = {"double": [1.5, 2.5]}

    assert computing(view)(columns) == {"sum": view.transform_dict(columns)["sum"]} == {"sum": [3.0, 5.0]}
    assert columns == {"double": [1.5, 2.5]}


def test_nothing_is_asked_for_no_key(store: FeatureStore) -> None:
    assert open_online_store(store).read([]) == []
    assert open_online_store(store).read([(VIEWS[0][1], [])]) == [[]]


def test_no_rows_have_no_values(store: FeatureStore) -> None:
    found = look_up(open_online_store(store), [VIEWS[0][1]], {"city": []}, KNOWN.timestamp())

    assert found == Usable({name: [] for name in TYPES}, [], {}, {})


def test_a_store_that_nobody_knows_better_is_read_through_feast(store: FeatureStore) -> None:
    other = RepoConfig(
        project="parity",
        provider="local",
        registry=store.config.registry.path,
        online_store={"type": "sqlite", "path": store.config.registry.path},
        entity_key_serialization_version=3,
    )
    other.registry.enable_online_feature_view_versioning = True

    assert isinstance(open_online_store(FeatureStore(config=other)), FeastRead)


@pytest.mark.parametrize("kind", ["fresh", "on_redis"])
def test_flights_are_looked_up_as_feast_would(
    kind: str, request: pytest.FixtureRequest, history: Settings, spec: ModelSpec
) -> None:
    features: Features = request.getfixturevalue(kind)
    features.materialize("flights", MOMENTS[3])
    rows = columns(asked_at(history, spec, MOMENTS[3], 100), features)
    rows["tailnum"][:3] = ["N0NE", "", None]
    rows["origin"][3], rows["dest"][4] = "XXX", "XXX"
    lean, theirs = features._online, FeastRead(features._store)
    assert isinstance(lean, SqliteRead | RedisRead)

    for moment in (MOMENTS[3], MOMENTS[3] + timedelta(hours=5), MOMENTS[3] + timedelta(days=3), MOMENTS[1]):
        read = features.online(SERVICE, rows, moment)
        features._online = theirs
        assert features.online(SERVICE, rows, moment) == read
        features._online = lean
    assert any(read.unknown)
