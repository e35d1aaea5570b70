"""The short way of a plain request, beside the way through FastAPI that any other takes: nobody can tell them apart."""

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from fastapi.routing import APIRoute

from evergreen.wiring import Wiring
from serving.app import create_app
from serving.keys import ApiKeys
from serving.metrics import Metrics
from serving.runtime import Runtime
from tests.serving.server_process import released, served
from tests.serving.serving_factories import NOON, a_flight, counted

PATH = "/predict/flight_delay"
PLAIN = "application/json"
THROUGH_FASTAPI = "application/vnd.evergreen+json"
"""JSON too, but not as everybody sends it."""
Serving = tuple[httpx.Client, Runtime, dict[str, str]]


@pytest.fixture(scope="module")
def serving(installation: Wiring) -> Iterator[Serving]:
    """One that asks for keys."""
    settings = installation.settings.model_copy(update={"require_api_keys": True, "max_body_bytes": 20_000})
    key = ApiKeys(settings.keys_file).make("asks", ["predict"])
    released(installation, 1)
    app = create_app(settings)
    with served(app) as client:
        yield client, app.state.runtime, {"authorization": f"Bearer {key}"}
    settings.keys_file.unlink()


def asked(serving: Serving, content: Any, kind: str, **headers: str) -> httpx.Response:
    client, _, key = serving
    return client.post(PATH, content=content, headers={**key, "content-type": kind, **headers})


def a_body(**fields: Any) -> bytes:
    return json.dumps({"rows": a_flight(example_id="told"), "as_of": NOON.isoformat(), **fields}).encode()


def counts(metrics: Metrics) -> dict[str, float]:
    return {
        status: counted(metrics, "requests_total", route="/predict/{model_name}", model="flight_delay", status=status)
        for status in ("200", "401", "404", "413", "422")
    }


def test_a_plain_request_never_comes_to_fastapi(serving: Serving) -> None:
    with patch.object(APIRoute, "handle", side_effect=AssertionError("it did")):
        answer = asked(serving, a_body(), PLAIN)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (a_body(), {}, 200),
        (a_body(rows=[a_flight(example_id=str(number)) for number in range(20)]), {}, 200),
        (a_body(features="given", rows={"temperature": 3, "wind_gust": None}), {}, 200),
        (a_body(rows=[]), {}, 422),
        (a_body(rows=a_flight(distance="far")), {}, 422),
        (a_body(rows=a_flight(origin="\ud800")), {}, 422),
        (a_body(as_of="never"), {}, 422),
        (a_body(surplus=1), {}, 422),
        (b'{"rows": [', {}, 422),
        (b'{"rows": "\xff"}', {}, 400),
        (b"", {}, 422),
        (a_body(), {"authorization": "Bearer nobody"}, 401),
        (a_body(rows=a_flight(origin="A" * 20_000)), {}, 413),
    ],
)
def test_both_ways_answer_alike_and_are_counted_alike(
    serving: Serving, body: bytes, headers: dict[str, str], status: int
) -> None:
    metrics = serving[1].metrics

    def told(kind: str) -> tuple[int, Any, dict[str, float]]:
        before = counts(metrics)
        answer = asked(serving, body, kind, **headers)
        said = answer.json()
        for one in said.get("predictions", []):
            if not one["example_id"].isdigit() and one["example_id"] != "told":  # made up
                del one["example_id"], one["prediction_id"]
        return answer.status_code, said, {name: count - before[name] for name, count in counts(metrics).items()}

    short, through_fastapi = told(PLAIN), told(THROUGH_FASTAPI)

    assert short == through_fastapi
    assert short[0] == status
    assert short[2].get(str(status), 1) == 1


def test_a_fault_of_ours_is_one_either_way_and_counted(serving: Serving) -> None:
    def faults() -> float:
        return counted(
            serving[1].metrics, "requests_total", route="/predict/{model_name}", model="flight_delay", status="500"
        )

    before = faults()
    with patch("serving.predict.columns_of", side_effect=RuntimeError("ours")):
        answers = [asked(serving, a_body(), kind, connection="close").status_code for kind in (PLAIN, THROUGH_FASTAPI)]

    assert answers == [500, 500]
    assert faults() == before + 2


def test_a_body_that_comes_in_parts_is_read_to_its_end(serving: Serving) -> None:
    body = a_body()
    parts = (body[place : place + 100] for place in range(0, len(body), 100))

    assert asked(serving, parts, PLAIN).json() == asked(serving, body, PLAIN).json()


def test_another_method_is_refused_with_the_one_there_is(serving: Serving) -> None:
    answer = serving[0].get(PATH, headers=serving[2])

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
