import difflib
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from evergreen.types import Task
from serving.columns import columns_of
from serving.faults import MOST_FAULTS
from serving.loaded import Kind
from serving.schemas import (
    Answer,
    Outcome,
    OutcomesRequest,
    PredictRequest,
    PredictResponse,
    require_known,
    require_labels,
)
from tests.serving.serving_factories import NOON, a_prediction

NEEDS: dict[str, Kind] = {"tail": "key", "gate": "integer", "load": "number", "departs": "timestamp"}
GOOD = {"tail": "N14228", "gate": 7, "load": 0.5, "departs": "2013-06-01T09:15:00-04:00"}


def columns(*rows: dict[str, Any], max_rows: int = 10) -> dict[str, list[Any]]:
    return columns_of(PredictRequest.model_validate({"rows": list(rows)}).rows, NEEDS, max_rows)


def faults(*rows: dict[str, Any], max_rows: int = 10) -> list[tuple[tuple[Any, ...], str]]:
    with pytest.raises(RequestValidationError) as caught:
        columns(*rows, max_rows=max_rows)
    return [(fault["loc"], fault["msg"]) for fault in caught.value.errors()]


def test_rows_become_columns_of_what_the_model_needs() -> None:
    got = columns(GOOD, GOOD | {"gate": 8, "example_id": "a"})

    assert got == {
        "tail": ["N14228", "N14228"],
        "gate": [7, 8],
        "load": [0.5, 0.5],
        "departs": [datetime(2013, 6, 1, 13, 15, tzinfo=UTC)] * 2,
    }


def test_one_row_may_come_without_its_list() -> None:
    assert PredictRequest.model_validate({"rows": GOOD}) == PredictRequest.model_validate({"rows": [GOOD]})


def test_every_column_that_is_missing_is_named_with_its_row() -> None:
    bare = {name: value for name, value in GOOD.items() if name not in ("tail", "load")}

    assert [loc for loc, _ in faults(GOOD, bare)] == [("body", "rows", 1, "tail"), ("body", "rows", 1, "load")]


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("tail", None, "Field required"),
        ("tail", "", "not empty"),
        ("tail", 3.5, "should be a key"),
        ("tail", False, "should be a key"),
        ("gate", "7", "whole number"),
        ("gate", 7.5, "whole number"),
        ("gate", True, "whole number"),
        ("load", "much", "finite number"),
        ("load", float("nan"), "finite number"),
        ("load", True, "finite number"),
        ("departs", "2013-06-01T09:15:00", "time zone"),
        ("departs", "yesterday", "time zone"),
        ("departs", 1370092500, "time zone"),
        ("tail", "N\ud800", "valid Unicode"),
        ("tail", "N\0", "without NUL"),
        ("tail", 10**30, "64 bits"),
        ("gate", 2**63, "64 bits"),
        ("load", 10**400, "finite number"),
        ("load", float("inf"), "finite number"),
        ("load", -1e39, "at most 3.4e+38"),
        ("departs", "0001-01-01T00:00:00+05:00", "between the years 1900 and 2200"),
        ("departs", "9999-12-31T23:59:59-05:00", "between the years 1900 and 2200"),
        ("departs", "1899-12-31T23:59:59Z", "between the years 1900 and 2200"),
        ("departs", "2200-12-31T23:59:59-05:00", "between the years 1900 and 2200"),
    ],
)
def test_a_cell_of_the_wrong_kind_is_named(column: str, value: Any, says: str) -> None:
    (fault,) = faults(GOOD | {column: value})

    assert fault[0] == ("body", "rows", 0, column)
    assert says in fault[1]


def test_a_misspelt_column_is_refused_with_the_nearest_known_one() -> None:
    (fault,) = faults(GOOD | {"exampel_id": "a"})

    assert fault == (("body", "rows", 0, "exampel_id"), "unknown column; did you mean 'example_id'?")


def test_too_many_rows_are_refused_with_the_limit() -> None:
    (fault,) = faults(GOOD, GOOD, GOOD, max_rows=2)

    assert fault == (
        ("body", "rows"),
        "3 rows in one request, [serve].max_rows is 2; send them in several requests",
    )


def test_an_example_is_asked_about_once_a_request() -> None:
    (fault,) = faults(GOOD | {"example_id": "a"}, GOOD | {"example_id": "b"}, GOOD | {"example_id": "a"})

    assert fault[0] == ("body", "rows", 2, "example_id")
    assert "row 0 has the same" in fault[1]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"rows": []}, ("rows",)),
        ({}, ("rows",)),
        ({"rows": [GOOD], "as_of": "2013-06-01T00:00:00"}, ("as_of",)),
        ({"rows": [GOOD], "asof": "2013-06-01T00:00:00Z"}, ("asof",)),
        ({"rows": [GOOD | {"example_id": ""}]}, ("rows", 0, "example_id")),
        ({"rows": ["N14228"]}, ("rows", 0)),
        ({"rows": [GOOD | {"example_id": "a\0"}]}, ("rows", 0, "example_id")),
        ({"rows": [GOOD | {"example_id": "\ud800"}]}, ("rows", 0, "example_id")),
        ({"rows": [GOOD], "as_of": "0001-01-01T00:00:00+05:00"}, ("as_of",)),
        ({"rows": [GOOD], "as_of": "9999-12-31T23:59:59-05:00"}, ("as_of",)),
        ({"rows": [GOOD], "as_of": float("inf")}, ("as_of",)),
    ],
)
def test_a_malformed_request_is_refused_at_its_field(body: dict[str, Any], where: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        PredictRequest.model_validate(body)

    assert [fault["loc"] for fault in caught.value.errors()] == [where]


MANY = {f"c{number}": 1 for number in range(2_001)}


@pytest.mark.parametrize(
    ("body", "where", "says"),
    [
        ({"rows": [1] * 5_000}, ("rows", 0), "valid dictionary"),
        ({"rows": [{}] * 10_001}, ("rows",), "10,001 rows in one request, 10,000 are the most; send them in several"),
        ({"rows": MANY}, ("rows", 0), "2,001 fields, 2,000 are the most"),
        ({"rows": [GOOD, MANY]}, ("rows", 1), "2,001 fields, 2,000 are the most"),
        ({"rows": [GOOD | {"tail": []}]}, ("rows", 0, "tail"), "should be a text, a number, true, false or null"),
        ({"rows": GOOD} | MANY, (), "2,002 fields, of which only rows, features, as_of are known"),
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_of_a_request_with_too_much_that_is_wrong_one_fault_is_named(
    body: dict[str, Any], where: tuple[Any, ...], says: str, as_text: bool
) -> None:
    """As the short way reads it, and FastAPI."""
    with pytest.raises(ValidationError) as caught:
        PredictRequest.model_validate_json(json.dumps(body)) if as_text else PredictRequest.model_validate(body)

    (fault,) = caught.value.errors()
    assert fault["loc"] == where
    assert says in fault["msg"].replace("an object", "a valid dictionary")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"outcomes": [{}, 1, {}]}, [("outcomes", 0, name) for name in Outcome.model_fields]),
        ({"outcomes": [MANY]}, [("outcomes", 0)]),
        ({"outcomes": [1] * 100_001}, [("outcomes",)]),
        ({"outcomes": []} | MANY, [()]),
    ],
)
def test_of_outcomes_that_are_none_the_first_is_named(body: dict[str, Any], where: list[tuple[Any, ...]]) -> None:
    with pytest.raises(ValidationError) as caught:
        OutcomesRequest.model_validate(body)

    assert [fault["loc"] for fault in caught.value.errors()] == where


def test_of_many_unknown_columns_a_hundred_are_named_and_few_looked_up() -> None:
    strange = {"x" * 1_000_000: 1} | {f"gate{number}": 1 for number in range(200)}
    with patch("serving.columns.difflib.get_close_matches", wraps=difflib.get_close_matches) as looked_up:
        found = faults(GOOD | {"lode": 1}, GOOD | strange, GOOD | strange)

    assert len(found) == MOST_FAULTS
    assert [said for _, said in found[:5]] == [
        "unknown column; did you mean 'load'?",
        "unknown column; /models has those the model takes",
        "unknown column; did you mean 'gate'?",
        "unknown column; /models has those the model takes",
        "unknown column; /models has those the model takes",
    ]
    assert looked_up.call_count == 2


def test_of_many_labels_of_another_task_or_time_a_hundred_are_named() -> None:
    odd = [Outcome(example_id="a", label=2, label_timestamp=NOON)] * 1_000

    with pytest.raises(RequestValidationError) as labels:
        require_labels(odd, "binary")
    with pytest.raises(RequestValidationError) as moments:
        require_known(odd, NOON - timedelta(days=1))

    assert len(labels.value.errors()) == len(moments.value.errors()) == MOST_FAULTS


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ({"label": "late"}, "label"),
        ({"label": 1e39}, "label"),
        ({"label_timestamp": "2013-06-01T00:00:00"}, "label_timestamp"),
        ({"example_id": ""}, "example_id"),
        ({"example_id": "a\0"}, "example_id"),
        ({"example_id": "\ud800"}, "example_id"),
        ({"label": 10**400}, "label"),
        ({"label_timestamp": "0001-01-01T00:00:00Z"}, "label_timestamp"),
        ({"label_timestamp": "9999-12-31T23:59:59-05:00"}, "label_timestamp"),
    ],
)
def test_a_malformed_outcome_is_refused_at_its_field(fault: dict[str, Any], where: str) -> None:
    outcome = {"example_id": "a", "label": 1, "label_timestamp": "2013-06-01T00:00:00Z"} | fault

    with pytest.raises(ValidationError) as caught:
        OutcomesRequest.model_validate({"outcomes": [outcome]})

    assert [found["loc"] for found in caught.value.errors()] == [("outcomes", 0, where)]


def outcome(known: datetime) -> Outcome:
    return Outcome(example_id="a", label=1, label_timestamp=known)


@pytest.mark.parametrize(
    ("task", "label"), [("binary", 2), ("binary", 0.5), ("multiclass", -1), ("multiclass", 0.5), ("multiclass", 1_000)]
)
def test_a_label_of_another_task_is_refused_at_its_field(task: Task, label: float) -> None:
    odd = Outcome(example_id="a", label=label, label_timestamp=NOON)

    with pytest.raises(RequestValidationError) as caught:
        require_labels([outcome(NOON), odd], task)

    assert [fault["loc"] for fault in caught.value.errors()] == [("body", "outcomes", 1, "label")]


def test_a_label_of_the_task_is_taken() -> None:
    each: list[tuple[Task, float]] = [("binary", 1.0), ("multiclass", 2.0), ("regression", -12.5)]
    for task, label in each:
        require_labels([Outcome(example_id="a", label=label, label_timestamp=NOON)], task)


def test_an_outcome_from_after_now_is_refused_at_its_moment() -> None:
    with pytest.raises(RequestValidationError) as caught:
        require_known([outcome(NOON), outcome(NOON + timedelta(minutes=6))], NOON)

    assert [fault["loc"] for fault in caught.value.errors()] == [("body", "outcomes", 1, "label_timestamp")]


def test_an_outcome_of_the_past_or_of_a_clock_a_little_ahead_is_known() -> None:
    require_known([outcome(NOON - timedelta(days=30_000)), outcome(NOON), outcome(NOON + timedelta(minutes=5))], NOON)


@pytest.mark.parametrize("probabilities", [None, {"early": 0.125, "late": 0.875}])
def test_what_is_dumped_is_an_answer_to_each_prediction(probabilities: dict[str, float] | None) -> None:
    asked = a_prediction(7).model_copy(update={"probabilities": probabilities, "stale": ("weather", "carriers")})

    said = PredictResponse.model_validate_json(PredictResponse.dumped("flight_delay", [asked, a_prediction(8)]))

    assert (said.model, said.as_of) == ("flight_delay", asked.event_timestamp)
    first, second = said.predictions
    assert (second.example_id, second.probabilities, second.most_likely) == (a_prediction(8).example_id, None, None)
    assert first.model_dump(exclude={"most_likely"}) == asked.model_dump(include=set(Answer.model_fields))
    assert first.most_likely == (None if probabilities is None else "late")
