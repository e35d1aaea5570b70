"""The API as a client meets it: real store, real models, real registry, real tables."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Semaphore, Thread
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from evergreen.errors import OnlineStoreAway
from evergreen.settings import ROOT, Settings
from evergreen.types import Release, Window
from evergreen.wiring import Wiring
from serving.app import SWITCH_SECONDS, create_app, serve
from serving.predict import ROWS_ON_THE_LOOP
from serving.runtime import Runtime
from tests.serving.server_process import Load, served
from tests.serving.serving_factories import NOON, a_flight, counted, eventually


@dataclass
class Api:
    """A running app, and the hand that moves its releases."""

    client: httpx.Client
    runtime: Runtime
    installation: Wiring

    def release(
        self, champion: int, challenger: int | None = None, share: float = 0.0, model: str = "flight_delay"
    ) -> Release:
        with self.installation.records() as records:
            before = records.releases.current(model)
            after = Release(
                model=model,
                revision=(before.revision if before else 0) + 1,
                champion=champion,
                challenger=challenger,
                challenger_share=share,
                changed_at=NOON,
            )
            expected = before.revision if before else None
            return records.releases.save(
                after, expected_revision=expected, action="test", actor="a test", reason="to see", at=NOON
            )

    def taken(self, release: Release) -> bool:
        loaded = self.runtime.models.serving(release.model)
        return loaded is not None and loaded.release == release

    def serves(self, champion: int, challenger: int | None = None, share: float = 0.0) -> None:
        release = self.release(champion, challenger, share)
        eventually(lambda: self.taken(release), seconds=60)

    def predict(self, *rows: dict[str, Any], model: str = "flight_delay", as_of: Any = NOON) -> Any:
        return self.client.post(f"/predict/{model}", json={"rows": list(rows), "as_of": as_of.isoformat()})

    def logged(self, *ids: str, model: str = "flight_delay") -> pd.DataFrame:
        assert self.runtime.log.flush()
        window = Window(start=NOON - timedelta(days=1), end=NOON + timedelta(days=1))
        with self.installation.records() as records:
            frame = records.predictions.frame(model, window, NOON + timedelta(days=9))
        return frame[frame["example_id"].isin(ids)].reset_index(drop=True)

    def counted(self, name: str, **labels: str) -> float:
        return counted(self.runtime.metrics, name, **labels)


@pytest.fixture(scope="module")
def api(installation: Wiring) -> Iterator[Api]:
    app = create_app(installation.settings)
    with served(app) as client:
        api = Api(client, app.state.runtime, installation)
        strict = api.release(1, model="strict")
        eventually(lambda: api.taken(strict), seconds=60)
        yield api


@pytest.fixture(autouse=True)
def _one_champion(api: Api) -> None:
    api.serves(1)


def test_while_it_serves_a_busy_thread_gives_the_interpreter_back_soon(installation: Wiring, api: Api) -> None:
    assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS, abs=2e-6)  # `api` serves
    sys.setswitchinterval(0.005)
    with served(create_app(installation.settings)):
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS, abs=2e-6)
    assert sys.getswitchinterval() == pytest.approx(0.005, abs=2e-6)
    sys.setswitchinterval(SWITCH_SECONDS)


def test_one_row_is_answered_by_the_champion(api: Api) -> None:
    answer = api.client.post(
        "/predict/flight_delay", json={"rows": a_flight(example_id="one"), "as_of": NOON.isoformat()}
    )

    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["as_of"]) == ("flight_delay", "2013-06-01T12:00:00Z")
    (only,) = body["predictions"]
    assert (only["example_id"], only["version"], only["role"], only["stale"]) == ("one", 1, "champion", [])
    assert 0.0 < only["score"] < 1.0


def test_many_rows_do_not_wait_for_those_who_wait_for_a_database_that_hangs(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, answers = Semaphore(0), Event()

    def hang() -> list[Release]:
        waits.release()
        assert answers.wait(120)
        return []

    monkeypatch.setattr(api.runtime, "releases", hang)
    threads = 40  # as many plain functions as FastAPI runs at a time
    with ThreadPoolExecutor(threads) as others, httpx.Client(base_url=api.client.base_url, timeout=120) as theirs:
        try:
            for _ in range(threads):
                others.submit(theirs.get, "/ready")
            assert all(waits.acquire(timeout=60) for _ in range(threads))

            for rows in (ROWS_ON_THE_LOOP + 1, 65):  # to become columns on a thread; to be answered on one too
                answer = api.predict(*(a_flight(number, example_id=f"h-{number}") for number in range(rows)))
                assert len(answer.json()["predictions"]) == rows
        finally:
            answers.set()


def test_answers_are_in_the_log_as_they_were_given(api: Api) -> None:
    api.serves(1, challenger=2, share=0.5)
    ids = [f"log-{number}" for number in range(40)]

    answers = api.predict(*(a_flight(number, example_id=ids[number]) for number in range(40))).json()["predictions"]

    logged = api.logged(*ids).set_index("prediction_id")
    assert [answer["example_id"] for answer in answers] == ids
    assert {answer["version"] for answer in answers} == {1, 2}
    for answer in answers:
        row = logged.loc[answer["prediction_id"]]
        assert [row[name] for name in ("example_id", "score", "version", "role")] == [
            answer[name] for name in ("example_id", "score", "version", "role")
        ]
        assert row["event_timestamp"] == NOON


def test_the_features_in_the_log_are_those_of_the_store(api: Api) -> None:
    api.predict(a_flight(example_id="features"))

    row = api.logged("features").iloc[0]

    flight = a_flight() | {"example_id": "features", "event_timestamp": pd.Timestamp(NOON).as_unit("us")}
    for name in ("scheduled_departure", "scheduled_arrival"):
        flight[name] = pd.Timestamp(flight[name]).as_unit("us")
    joined = api.installation.features.historical("flight_delay", pd.DataFrame([flight])).iloc[0]
    spec = api.installation.spec("flight_delay")
    for name in api.installation.features.inputs("flight_delay", spec.data.entity_features):
        assert row[name] == joined[name], name


def test_a_batch_in_process_goes_the_same_way_as_a_request(api: Api) -> None:
    loaded = api.runtime.models.named("flight_delay")
    flight = a_flight() | {"example_id": "both", "event_timestamp": pd.Timestamp(NOON).as_unit("us")}
    for name in ("scheduled_departure", "scheduled_arrival"):
        flight[name] = pd.Timestamp(flight[name]).as_unit("us")
    joined = api.installation.features.historical("flight_delay", pd.DataFrame([flight]))

    (bulk,) = api.runtime.scorer.answer_joined(loaded, joined)
    (asked,) = api.predict(a_flight(example_id="both")).json()["predictions"]

    assert (asked["prediction_id"], asked["score"]) == (bulk.prediction_id, bulk.score)
    assert len(api.logged("both")) == 1


def test_a_client_that_asks_again_is_not_logged_twice(api: Api) -> None:
    once, again = (api.predict(a_flight(example_id="retry")).json()["predictions"][0] for _ in range(2))

    assert once == again
    assert len(api.logged("retry")) == 1


def test_rows_without_an_id_get_one_each(api: Api) -> None:
    answers = api.predict(a_flight(), a_flight()).json()["predictions"]

    assert len({answer["example_id"] for answer in answers}) == 2


def test_without_a_moment_it_is_asked_now(installation: Wiring, api: Api) -> None:
    answer = api.client.post("/predict/flight_delay", json={"rows": a_flight()}).json()

    assert abs(pd.Timestamp(answer["as_of"]) - pd.Timestamp.now("UTC")) < pd.Timedelta(minutes=1)
    assert "origin_weather" in answer["predictions"][0]["stale"]  # thirteen years old by now


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"rows": [{**a_flight(), "tailnum": None}]}, ["body", "rows", 0, "tailnum"]),
        (
            {"rows": [a_flight(), {k: v for k, v in a_flight().items() if k != "distance"}]},
            ["body", "rows", 1, "distance"],
        ),
        ({"rows": [{**a_flight(), "scheduled_departure": "soon"}]}, ["body", "rows", 0, "scheduled_departure"]),
        ({"rows": [{**a_flight(), "carier": "UA"}]}, ["body", "rows", 0, "carier"]),
        ({"rows": [a_flight()] * 1_001}, ["body", "rows"]),
        ({"rows": []}, ["body", "rows"]),
        ({"rows": [a_flight()], "as_of": "2013-06-01"}, ["body", "as_of"]),
        ({}, ["body", "rows"]),
    ],
)
def test_a_malformed_request_names_its_field(api: Api, body: Any, where: list[Any]) -> None:
    answer = api.client.post("/predict/flight_delay", json=body)

    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [where]


def posted(api: Api, path: str, body: Any) -> httpx.Response:
    """Post what JSON libraries accept beyond JSON too: NaN, half a surrogate pair."""
    return api.client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("distance", float("nan")),
        ("distance", float("inf")),
        ("distance", 10**400),
        ("distance", 1e39),
        ("distance", [[[[float("nan")]]]]),
        ("tailnum", "N\ud800"),
        ("tailnum", "N\0"),
        ("tailnum", float("nan")),
        ("example_id", "\ud800"),
        ("example_id", "a\0"),
        ("carier", "\ud800"),
        ("scheduled_departure", "0001-01-01T00:00:00+05:00"),
        ("scheduled_departure", "0001-01-01T00:00:00Z"),
        ("scheduled_departure", "9999-12-31T23:59:59-05:00"),
        ("scheduled_arrival", "9999-12-31T12:00:00Z"),
    ],
)
def test_a_cell_nothing_could_store_is_refused_at_its_field(api: Api, column: str, value: Any) -> None:
    answer = posted(api, "/predict/flight_delay", {"rows": [a_flight() | {column: value}], "as_of": NOON.isoformat()})

    assert answer.status_code == 422
    assert {tuple(fault["loc"][:4]) for fault in answer.json()["detail"]} == {("body", "rows", 0, column)}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("distance", 3.4e38),
        ("distance", -(10**38)),
        ("tailnum", "é" * 1_000),
        ("scheduled_departure", "1900-01-01T00:00:00Z"),
        ("scheduled_departure", "2200-12-31T23:59:59.999999Z"),
        ("scheduled_arrival", "2200-12-31T23:59:59.999999Z"),
    ],
)
def test_a_cell_at_the_end_of_what_is_accepted_is_answered_and_logged(api: Api, column: str, value: Any) -> None:
    failures = api.counted("log_failures_total")

    answer = posted(api, "/predict/flight_delay", {"rows": [a_flight() | {column: value}], "as_of": NOON.isoformat()})

    assert answer.status_code == 200
    assert api.runtime.log.flush()
    assert api.counted("log_failures_total") == failures


@pytest.mark.parametrize("as_of", ["1900-01-01T00:00:00Z", "2200-12-31T23:59:59.999999Z"])
def test_a_moment_at_the_end_of_what_is_accepted_is_answered(api: Api, as_of: str) -> None:
    assert posted(api, "/predict/flight_delay", {"rows": [a_flight()], "as_of": as_of}).status_code == 200


@pytest.mark.parametrize("as_of", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", float("nan"), 1e400])
def test_a_moment_out_of_all_time_is_refused(api: Api, as_of: Any) -> None:
    answer = posted(api, "/predict/flight_delay", {"rows": [a_flight()], "as_of": as_of})

    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", "as_of"]]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("example_id", "\ud800"),
        ("example_id", "a\0"),
        ("label", float("nan")),
        ("label", 10**400),
        ("label_timestamp", "0001-01-01T00:00:00+05:00"),
        ("label_timestamp", "9999-12-31T23:59:59-05:00"),
        ("label_timestamp", "2190-01-01T00:00:00Z"),
    ],
)
def test_an_outcome_nothing_could_store_is_refused_at_its_field(api: Api, column: str, value: Any) -> None:
    outcome = {"example_id": "a", "label": 1, "label_timestamp": NOON.isoformat()} | {column: value}

    answer = posted(api, "/outcomes/flight_delay", {"outcomes": [outcome]})

    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", "outcomes", 0, column]]


@pytest.mark.parametrize("name", ["%00", "flight%00delay", "%ED%A0%80", "a" * 300])
@pytest.mark.parametrize("route", ["predict", "outcomes"])
def test_a_model_name_no_file_can_have_is_refused(api: Api, route: str, name: str) -> None:
    body = {"rows": [a_flight()], "outcomes": [{"example_id": "a", "label": 1, "label_timestamp": NOON.isoformat()}]}
    key = {"predict": "rows", "outcomes": "outcomes"}[route]

    answer = posted(api, f"/{route}/{name}", {key: body[key]})

    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["path", "model_name"]]


TEXTS = st.one_of(
    st.text(st.characters(), max_size=20),  # half surrogate pairs too
    st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    st.sampled_from(
        ["UA", "EWR", "N14228", "2013-06-01T14:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-05:00"]
    ),
)
CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(0, 6).map(lambda n: -(10 ** (100 * n))), st.floats(), TEXTS
)
JSON = st.recursive(
    CELLS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
OUTCOME = {"example_id": "random", "label": 1, "label_timestamp": NOON.isoformat()}


def changed(good: dict[str, Any], *more: str) -> st.SearchStrategy[dict[str, Any]]:
    """A good mapping in which a few values are anything."""
    return st.dictionaries(st.sampled_from([*good, *more]) | TEXTS, JSON, max_size=2).map(lambda odd: good | odd)


ASKED = st.one_of(
    st.builds(
        lambda rows, around: {"rows": rows} | around,
        st.lists(changed(a_flight(), "example_id"), min_size=1, max_size=2),
        st.fixed_dictionaries({}, optional={"as_of": CELLS}),
    ),
    changed({"rows": [a_flight()], "as_of": NOON.isoformat()}),
    JSON,
)
REPORTED = st.one_of(
    st.lists(changed(OUTCOME), min_size=1, max_size=2).map(lambda outcomes: {"outcomes": outcomes}),
    changed({"outcomes": [OUTCOME]}),
    JSON,
)


@pytest.mark.parametrize(("path", "bodies"), [("/predict/flight_delay", ASKED), ("/outcomes/flight_delay", REPORTED)])
def test_no_request_is_a_fault_of_ours(api: Api, path: str, bodies: st.SearchStrategy[Any]) -> None:
    failures = api.counted("log_failures_total")

    @settings(max_examples=250, deadline=None, database=None)
    @given(body=bodies)
    def ask(body: Any) -> None:
        answer = posted(api, path, body)
        assert answer.status_code in (200, 400, 422), answer.text

    ask()

    assert api.runtime.log.flush()
    assert api.counted("log_failures_total") == failures


def test_what_is_not_json_is_refused(api: Api) -> None:
    answer = api.client.post("/predict/flight_delay", content=b"{rows:", headers={"content-type": "application/json"})

    assert answer.status_code == 422


def test_an_unknown_model_is_refused_with_the_known_ones(api: Api) -> None:
    answer = api.predict(a_flight(), model="flight_dealy")

    assert answer.status_code == 404
    assert answer.json()["detail"] == "no model 'flight_dealy' is released; known models: ['flight_delay', 'strict']"
    assert api.counted("errors_total", model="unknown", error="UnknownModel") >= 1


def test_an_unknown_entity_is_answered_from_missing_values_and_counted(api: Api) -> None:
    before = api.counted("unknown_entities_total", model="flight_delay", policy="defaults")

    answer = api.predict(a_flight(example_id="new-plane", tailnum="N0NEW"), a_flight(1))

    assert answer.status_code == 200
    assert {"aircraft", "aircraft_last_leg"} <= set(answer.json()["predictions"][0]["stale"])
    assert answer.json()["predictions"][1]["stale"] == []
    assert pd.isna(api.logged("new-plane")["aircraft_seats"].iloc[0])
    assert api.counted("unknown_entities_total", model="flight_delay", policy="defaults") == before + 1
    assert api.counted("stale_features_total", model="flight_delay", view="aircraft") >= 1


def test_an_unknown_entity_is_refused_where_the_spec_says_so_and_counted(api: Api) -> None:
    before = api.counted("unknown_entities_total", model="strict", policy="refuse")

    answer = api.predict(a_flight(example_id="known"), a_flight(example_id="new", tailnum="N0NEW"), model="strict")

    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(
        "1 of 2 rows name an entity the online store has never seen, and [serve].unknown_entity of strict is 'refuse': "
        "row 1 (new): "
    )
    assert "tailnum=N0NEW" in answer.json()["detail"]
    assert api.counted("unknown_entities_total", model="strict", policy="refuse") == before + 1
    assert api.logged("known", "new", model="strict").empty


@pytest.mark.parametrize("hours", [3, -1])
def test_values_too_old_or_from_the_future_are_not_used_and_named(api: Api, hours: int) -> None:
    moment = NOON + timedelta(hours=hours)

    (answer,) = api.predict(a_flight(example_id=f"stale{hours}"), as_of=moment).json()["predictions"]

    assert "origin_congestion" in answer["stale"]  # one hour to live
    assert pd.isna(api.logged(f"stale{hours}")["departed_1h"].iloc[0])


def test_outcomes_are_kept_once_and_counted(api: Api) -> None:
    api.predict(a_flight(example_id="flown"))
    api.logged("flown")
    known = (NOON + timedelta(hours=6)).isoformat()
    body = {
        "outcomes": [
            {"example_id": "flown", "label": 1, "label_timestamp": known},
            {"example_id": "never-asked", "label": 0, "label_timestamp": known},
        ]
    }

    first, second = (api.client.post("/outcomes/flight_delay", json=body).json() for _ in range(2))

    assert first == {"new": 2, "repeated": 0, "unknown": 1, "conflicting": 0, "kinds": ["new", "unknown"]}
    assert second == {"new": 0, "repeated": 2, "unknown": 0, "conflicting": 0, "kinds": ["repeated", "repeated"]}
    assert api.logged("flown")["label"].tolist() == [1.0]


def test_an_outcome_without_its_moment_is_refused(api: Api) -> None:
    answer = api.client.post("/outcomes/flight_delay", json={"outcomes": [{"example_id": "a", "label": 1}]})

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "outcomes", 0, "label_timestamp"]


def test_outcomes_of_an_unknown_model_are_refused(api: Api) -> None:
    body = {"outcomes": [{"example_id": "a", "label": 1, "label_timestamp": NOON.isoformat()}]}

    answer = api.client.post("/outcomes/flight_dealy", json=body)

    assert answer.status_code == 404
    assert "did you mean 'flight_delay'?" in answer.json()["detail"]


def test_a_new_champion_takes_over_without_a_failed_request(api: Api) -> None:
    stop = Event()

    def hammer(worker: int) -> list[tuple[int, set[int]]]:
        seen = []
        while not stop.is_set():
            answer = api.predict(*(a_flight(number, example_id=f"{worker}-{number}") for number in range(8)))
            seen.append((answer.status_code, {one["version"] for one in answer.json()["predictions"]}))
        return seen

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(hammer, worker) for worker in range(4)]
        try:
            api.serves(1, challenger=2, share=0.5)
            api.serves(2)
            api.serves(1)
            api.serves(2)
            (after,) = api.predict(a_flight()).json()["predictions"]
        finally:
            stop.set()
        answers = [answer for worker in workers for answer in worker.result(30)]

    assert {status for status, _ in answers} == {200}
    assert {version for _, versions in answers for version in versions} == {1, 2}
    assert after["version"] == 2


def test_a_challenger_answers_the_same_keys_after_it_is_loaded_again(api: Api) -> None:
    rows = [a_flight(number, example_id=f"sticky-{number}") for number in range(30)]

    def asked() -> list[int]:
        return [one["version"] for one in api.predict(*rows).json()["predictions"]]

    api.serves(1, challenger=2, share=0.4)
    first = asked()
    api.serves(1)
    api.serves(1, challenger=2, share=0.4)

    assert asked() == first
    assert set(first) == {1, 2}


@contextmanager
def torn(folder: Path) -> Iterator[None]:
    """A registry in which every model's weights have changed."""
    weights = list(folder.rglob("weights.safetensors"))
    assert weights
    whole = {path: path.read_bytes() for path in weights}
    for path, content in whole.items():
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        yield
    finally:
        for path, content in whole.items():
            path.write_bytes(content)


def refuses(api: Api, number: int) -> dict[str, Any]:
    """Release a version that cannot be served, and return what /models says of it."""
    failures = api.counted("load_failures_total", model="flight_delay")
    release = api.release(number)
    eventually(lambda: api.counted("load_failures_total", model="flight_delay") > failures)
    shown: dict[str, Any] = api.client.get("/models").json()[0]
    assert shown["release"]["revision"] == release.revision
    assert shown["serving"]["champion"] == 1
    assert api.predict(a_flight()).json()["predictions"][0]["version"] == 1
    ready = api.client.get("/ready")
    assert ready.status_code == 200
    (warning,) = ready.json()["warnings"]
    assert shown["error"] in warning
    return shown


def test_a_version_whose_bytes_changed_is_not_served_and_the_old_one_goes_on(api: Api) -> None:
    with torn(api.installation.settings.home / "mlartifacts"):
        shown = refuses(api, 2)

    assert "ArtifactError" in shown["error"]
    assert "its bytes changed" in shown["error"]


def test_a_version_that_did_not_pass_its_gate_is_never_served(api: Api) -> None:
    assert "flight_delay version 3 is never served: it did not pass its gate" in refuses(api, 3)["error"]


def test_a_version_nobody_sealed_is_never_served(api: Api) -> None:
    from mlflow import MlflowClient

    uri = api.installation.settings.tracking_uri
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    seal = client.get_model_version("flight_delay", "2").tags["evergreen.seal"]
    client.delete_model_version_tag("flight_delay", "2", "evergreen.seal")
    try:
        shown = refuses(api, 2)
    finally:
        client.set_model_version_tag("flight_delay", "2", "evergreen.seal", seal)

    assert "version 2 is never served: nobody sealed it" in shown["error"]


def test_a_version_the_registry_does_not_hold_is_said(api: Api) -> None:
    assert "no version 99 of 'flight_delay'" in refuses(api, 99)["error"]


def test_a_failed_release_that_is_rolled_back_leaves_no_complaint(api: Api) -> None:
    refuses(api, 3)

    api.serves(1)

    assert api.client.get("/models").json()[0]["error"] is None
    assert api.client.get("/ready").json() == {"ready": True, "reasons": [], "warnings": []}


def test_models_shows_what_serves_and_what_a_row_must_bring(api: Api) -> None:
    api.serves(1, challenger=2, share=0.25)

    shown = api.client.get("/models").json()[0]

    assert (shown["model"], shown["error"]) == ("flight_delay", None)
    assert (shown["serving"]["champion"], shown["serving"]["challenger"]) == (1, 2)
    assert shown["serving"]["challenger_share"] == 0.25
    assert shown["in_memory"] == [1, 2]
    assert shown["needs"].keys() == a_flight().keys()


def test_a_released_model_that_never_loaded_makes_it_unready(api: Api) -> None:
    api.release(1, model="ghost")
    try:
        eventually(lambda: "no model" in (api.runtime.models.reason("ghost") or ""))
        ready, asked = api.client.get("/ready"), api.predict(a_flight(), model="ghost")
    finally:
        with api.installation.engine.begin() as connection:
            connection.execute(text("DELETE FROM releases WHERE model = 'ghost'"))
            connection.execute(text("DELETE FROM release_journal WHERE model = 'ghost'"))

    assert ready.status_code == 503
    assert "no model 'ghost'" in ready.json()["reasons"][0]
    assert asked.status_code == 503
    assert "'ghost' is released but not in memory" in asked.json()["detail"]


@contextmanager
def away(path: Path, disconnect: Callable[[], None]) -> Iterator[None]:
    """A database that cannot be opened, and comes back as it was.

    In one step each: whoever looks for it between two would make an empty one.
    """
    aside, nowhere = path.with_suffix(".aside"), path.with_suffix(".nowhere")
    aside.hardlink_to(path)
    nowhere.symlink_to(path.parent / "gone" / path.name)
    nowhere.replace(path)
    disconnect()
    try:
        yield
    finally:
        aside.replace(path)


def test_serving_goes_on_while_the_database_is_away_and_logs_when_it_is_back(api: Api) -> None:
    carrier = api.runtime._carrier
    assert carrier is not None
    api.logged()
    api.installation.engine.dispose()

    def disconnect() -> None:
        api.runtime._wiring.engine.dispose()
        if carrier.process_id is not None:
            psutil.Process(carrier.process_id).kill()

    with away(api.installation.settings.home / "evergreen.db", disconnect):
        ready = api.client.get("/ready")
        asked = api.predict(a_flight(example_id="while-away"))
        eventually(lambda: api.counted("log_failures_total") >= 2, seconds=60)  # the killed process, then the database

    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["the database does not answer: OperationalError"]
    assert asked.status_code == 200
    assert len(api.logged("while-away")) == 1


def test_an_online_store_that_is_away_is_said_and_whoever_brings_features_is_answered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise OnlineStoreAway("the online store, Redis, does not answer: Timeout")

    row = dict.fromkeys(api.runtime.models.named("flight_delay").inputs)
    monkeypatch.setattr(api.runtime._wiring.features, "online", away)

    asked = api.predict(a_flight(example_id="away"))
    brought = api.client.post("/predict/flight_delay", json={"rows": [row], "features": "given"})

    assert (asked.status_code, asked.headers["Retry-After"]) == (503, "1")
    assert asked.json()["detail"] == "the online store, Redis, does not answer: Timeout"
    assert api.counted("errors_total", model="flight_delay", error="OnlineStoreAway") == 1
    assert brought.status_code == 200


def test_the_process_is_alive(api: Api) -> None:
    assert api.client.get("/health").json() == {"status": "alive"}


def test_metrics_are_what_prometheus_reads(api: Api) -> None:
    api.predict(a_flight())
    api.predict(a_flight(), model="whatever-a-client-types")

    page = api.client.get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(page.text)}
    assert {"evergreen_requests", "evergreen_prediction_seconds", "evergreen_log_queue_rows", "evergreen_swaps"} <= (
        families.keys()
    )
    requests = [sample.labels for sample in families["evergreen_requests"].samples]
    assert {"route": "/predict/{model_name}", "model": "flight_delay", "status": "200"} in requests
    assert {labels["model"] for labels in requests} <= {"", "flight_delay", "strict", "ghost", "unknown"}


def test_what_the_watch_found_is_a_page_of_its_own_for_prometheus(api: Api) -> None:
    page = api.client.get("/metrics/monitoring")

    families = {family.name: family for family in text_string_to_metric_families(page.text)}
    ages = {s.labels["model"]: s.value for s in families["evergreen_monitoring_champion_age_seconds"].samples}
    assert {"flight_delay", "strict"} <= ages.keys()
    assert "evergreen_monitoring_realised_loss" in families
    assert not families["evergreen_monitoring_realised_loss"].samples  # nobody watched yet


def test_the_openapi_page_tells_a_client_what_to_send(api: Api) -> None:
    described = api.client.get("/openapi.json").json()

    assert {"/predict/{model_name}", "/outcomes/{model_name}", "/health", "/ready", "/metrics", "/models"} <= (
        described["paths"].keys()
    )
    example = described["components"]["schemas"]["Row"]["examples"][0]
    assert api.predict(example).status_code == 200


def test_a_server_that_stops_writes_what_it_answered(installation: Wiring, api: Api) -> None:
    other = create_app(installation.settings)
    with served(other) as client:
        body = {"rows": a_flight(example_id="last-words"), "as_of": NOON.isoformat()}
        assert client.post("/predict/flight_delay", json=body).status_code == 200

    assert len(api.logged("last-words")) == 1


def test_a_port_that_is_taken_gets_a_clear_error_and_no_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        environment = {**os.environ, "EVERGREEN_HOME": str(tmp_path), "EVERGREEN_SERVING_PORT": str(port)}
        ended = subprocess.run(
            [sys.executable, "-m", "serving"], env=environment, cwd=ROOT, capture_output=True, text=True
        )

    assert ended.returncode == 1
    assert ended.stderr == (
        f"serving cannot listen on 127.0.0.1:{port}: Address already in use. "
        "Stop what holds the port, or choose another with EVERGREEN_SERVING_PORT (and EVERGREEN_HOST).\n"
    )


def test_a_server_that_cannot_start_says_why_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evergreen.db").mkdir()  # no database can be here
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with pytest.raises(SystemExit) as ended:
        serve(Settings(home=tmp_path, serving_port=port))

    assert ended.value.code == 3
    assert "EVERGREEN_DATABASE_URL" in capsys.readouterr().err


def test_features_that_come_with_the_request_are_scored_as_they_are(api: Api) -> None:
    (looked_up,) = api.predict(a_flight(example_id="looked-up")).json()["predictions"]
    row = api.logged("looked-up").iloc[0]
    inputs = next(one for one in api.client.get("/models").json() if one["model"] == "flight_delay")["inputs"]
    features = {name: None if pd.isna(row[name]) else row[name] for name in inputs}
    body = {"rows": features | {"example_id": "given"}, "features": "given", "as_of": NOON.isoformat()}

    (given,) = api.client.post("/predict/flight_delay", json=body).json()["predictions"]

    assert given["score"] == pytest.approx(looked_up["score"], abs=1e-6)
    assert given["stale"] == []
    pd.testing.assert_series_equal(api.logged("given").iloc[0][list(inputs)], row[list(inputs)], check_names=False)


def test_given_features_are_checked_and_may_be_missing(api: Api) -> None:
    def asked(**features: Any) -> httpx.Response:
        return api.client.post("/predict/flight_delay", json={"rows": features, "features": "given"})

    assert asked().status_code == 200
    assert asked(departed_1h=3.0, carrier=None).status_code == 200
    wrong = asked(departed_1h="many", departed_2h=3.0)
    assert wrong.status_code == 422
    assert [fault["loc"][-1] for fault in wrong.json()["detail"]] == ["departed_1h", "departed_2h"]


def test_single_rows_that_come_together_are_answered_together(api: Api) -> None:
    batches = "batch_rows_count"
    before, rows = api.counted(batches, model="flight_delay"), api.counted("batch_rows_sum", model="flight_delay")

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(api.predict, a_flight(n, example_id=f"together-{n}")) for n in range(160)]
        answers = [one.result().json()["predictions"][0]["example_id"] for one in asked]

    assert answers == [f"together-{n}" for n in range(160)]
    assert api.counted("batch_rows_sum", model="flight_delay") - rows == 160
    assert api.counted(batches, model="flight_delay") - before < 160


def test_stored_values_that_were_just_read_are_not_read_again(api: Api) -> None:
    hits = {"cache": "features", "model": "flight_delay", "result": "hit"}
    api.predict(a_flight(example_id="read"))
    before = api.counted("cache_lookups_total", **hits)

    (first,) = api.predict(a_flight(example_id="kept")).json()["predictions"]

    assert api.counted("cache_lookups_total", **hits) > before
    assert first["stale"] == []
    read, kept = (api.logged(name).drop(columns=OF_A_ROW) for name in ("read", "kept"))
    pd.testing.assert_frame_equal(read, kept)
    assert api.counted("feature_age_seconds_count", model="flight_delay", view="origin_weather") > 0


OF_A_ROW = ["prediction_id", "example_id", "latency_ms"]
"""Columns of the log that two answers to the same question differ in."""


@pytest.mark.slow
def test_fifty_swaps_under_load_fail_no_request(api: Api) -> None:
    with Load(str(api.client.base_url), "swaps") as load:
        for number in range(50):
            api.serves(1 + number % 2)

    assert load.failures == []
    assert len(load.answered) > 500
