"""What goes over the wire: requests, answers, and what a row must bring.

A row's columns depend on the model, so they are checked here against what its feature service needs, and a fault has
the same shape as any other 422: its place in the body, and what is wrong there. Used by `routes.py` only.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from evergreen.adapters.prediction_log import OutcomeKind as Kinds
from evergreen.figures import LABELS, odd_labels
from evergreen.types import Prediction, Release, Task, Utc
from evergreen.types.fact import in_utc
from serving.loaded import Kind

UNSOUND = re.compile("[\0\ud800-\udfff]")
"""Half a surrogate pair cannot be encoded, and PostgreSQL stores no text with a NUL."""
WHOLE = range(-(2**63), 2**63)
"""Whole numbers that fit a column."""
LARGEST = 3.4e38
"""The largest number a model can take: they count in float32."""
AHEAD = timedelta(minutes=5)
"""How far a client's clock may be ahead of ours."""


def sound(text: str) -> str:
    """The text itself; raises `ValueError` where a store could not keep it."""
    if UNSOUND.search(text):
        raise ValueError("should be valid Unicode without NUL characters")
    return text


Cell = bool | int | float | str | None
ExampleId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(sound)]


class Message(BaseModel):
    """Base of all requests and answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Row(BaseModel):
    """One thing to predict: its entity keys and request columns beside an optional `example_id`."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "example_id": "2013-06-10-DL-141-JFK",
                    "carrier": "DL",
                    "origin": "JFK",
                    "dest": "SFO",
                    "tailnum": "N712TW",
                    "scheduled_departure": "2013-06-10T20:00:00Z",
                    "scheduled_arrival": "2013-06-11T02:38:00Z",
                    "distance": 2586,
                }
            ]
        },
    )
    __pydantic_extra__: dict[str, Cell]

    example_id: ExampleId | None = None
    """Names the row in the log, for its outcome and its routing; one is made up, in the order of time, where there is none."""


def _as_list(rows: Any) -> Any:
    return [rows] if isinstance(rows, dict) else rows


class PredictRequest(Message):
    """One row or many, of what the features are looked up by; or, with `features` = given, of the features themselves."""

    rows: Annotated[list[Row], Field(min_length=1), BeforeValidator(_as_list, json_schema_input_type=Row | list[Row])]
    features: Literal["online", "given"] = "online"
    """Given: each row holds the model's inputs (`inputs` in /models), null or left out where missing, and nothing is
    looked up."""
    as_of: Utc | None = None
    """The logical moment whose knowledge to use; now where there is none. Give it, and `example_id`, and asking again
    is the same prediction."""


class Answer(Message):
    """The answer to one row."""

    prediction_id: str
    example_id: str
    score: float
    """Probability that the label is 1; of more than two classes, that of the most likely one; or the number predicted."""
    most_likely: str | None
    """Name of the most likely class, of a multiclass model."""
    probabilities: dict[str, float] | None
    """By class, in the order of their numbers, of a multiclass model."""
    version: int
    role: Literal["champion", "challenger"]
    stale: tuple[str, ...]
    """Feature views whose values were missing or too old, and so not used."""

    @staticmethod
    def fields(prediction: Prediction) -> dict[str, Any]:
        """What a client is told of a prediction."""
        by_class = prediction.probabilities
        return {
            "prediction_id": prediction.prediction_id,
            "example_id": prediction.example_id,
            "score": prediction.score,
            "most_likely": by_class and max(by_class, key=by_class.__getitem__),
            "probabilities": by_class,
            "version": prediction.version,
            "role": prediction.role,
            "stale": prediction.stale,
        }


class PredictResponse(Message):
    """The answers, in the order of the rows."""

    model: str
    as_of: Utc
    predictions: list[Answer]

    @staticmethod
    def dumped(model: str, predictions: Sequence[Prediction]) -> bytes:
        """One as JSON, of predictions as of one moment; objects, made, checked and dumped, would take four times as long."""
        said = {
            "model": model,
            "as_of": predictions[0].event_timestamp,
            "predictions": [Answer.fields(one) for one in predictions],
        }
        return orjson.dumps(said, option=orjson.OPT_UTC_Z)


class Outcome(Message):
    """What came true for one example."""

    example_id: ExampleId
    label: Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
    """0 or 1, a class's number from 0 up, or a number, as the model's task has it."""
    label_timestamp: Utc
    """When it became known, not after now. The same example and moment again is the same outcome; a later moment is a
    correction."""


class OutcomesRequest(Message):
    """Outcomes to keep beside the predictions."""

    outcomes: Annotated[list[Outcome], Field(min_length=1, max_length=100_000)]


class OutcomesResponse(Message):
    """What was new; reporting an outcome again changes nothing."""

    new: int
    """Stored now, the unknown ones and corrections among them."""
    repeated: int
    """Stored before, or twice in this request."""
    unknown: int
    """Outcomes whose example has no prediction in the log yet; they are kept, and join one that comes later."""
    conflicting: int
    """Another label for an example and moment that has one; the first stays. A correction has a later moment."""
    kinds: tuple[Kinds, ...]
    """What became of each outcome, in the order of the request."""


class ServedModel(Message):
    """One released model as it serves here."""

    model: str
    release: Release
    """As the `releases` table has it."""
    serving: Release | None
    """As it is in memory; behind `release` while a new version loads or cannot be loaded."""
    in_memory: tuple[int, ...]
    needs: dict[str, Kind]
    """Columns a row must bring."""
    inputs: dict[str, Kind]
    """Columns a row may bring instead, with `features` = given."""
    error: str | None
    """Why `release` is not what serves."""


class Readiness(Message):
    """May traffic come here?"""

    ready: bool
    reasons: tuple[str, ...]
    """Why not."""
    warnings: tuple[str, ...]
    """What is wrong though everything answers: a new version that cannot be loaded while the old one serves."""


class Refusal(Message):
    """Why a request was not answered."""

    detail: str


def columns_of(
    rows: Sequence[Row], needs: Mapping[str, Kind], max_rows: int, *, may_miss: bool = False
) -> dict[str, list[Any]]:
    """A column for each of `needs`, parsed; raises FastAPI's 422 naming every field that is wrong.

    With `may_miss` a field that is null or left out is None.
    """
    faults: list[dict[str, Any]] = []
    if len(rows) > max_rows:
        message = f"{len(rows)} rows in one request, [serve].max_rows is {max_rows}; send them in several requests"
        raise RequestValidationError([_fault("too_long", ("rows",), message, len(rows))])
    columns: dict[str, list[Any]] = {name: [] for name in needs}
    seen: dict[str, int] = {}
    for number, row in enumerate(rows):
        given = row.model_extra or {}
        for name, kind in needs.items():
            try:
                cell = given.get(name)
                columns[name].append(None if may_miss and cell is None else _PARSERS[kind](cell))
            except ValueError as error:
                missing = "missing" if given.get(name) is None else f"{kind}_type"
                faults.append(_fault(missing, ("rows", number, name), str(error), given.get(name)))
        for name in given.keys() - needs.keys():
            near = difflib.get_close_matches(name, [*needs, "example_id"], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"this model takes {sorted(needs)}"
            message = f"unknown column; {hint}"
            faults.append(_fault("extra_forbidden", ("rows", number, name), message, given[name]))
        if row.example_id is not None and seen.setdefault(row.example_id, number) != number:
            message = f"row {seen[row.example_id]} has the same example_id; an example is asked about once a request"
            faults.append(_fault("repeated", ("rows", number, "example_id"), message, row.example_id))
    if faults:
        raise RequestValidationError(faults)
    return columns


def require_labels(outcomes: Sequence[Outcome], task: Task) -> None:
    """Refuse labels that are not the task's, with FastAPI's 422."""
    odd = odd_labels(task, np.array([outcome.label for outcome in outcomes])).tolist()
    faults = [
        _fault(
            "label", ("outcomes", number, "label"), f"should be {LABELS[task]}, as the model is {task}", outcome.label
        )
        for number, outcome in enumerate(outcomes)
        if odd[number]
    ]
    if faults:
        raise RequestValidationError(faults)


def require_known(outcomes: Sequence[Outcome], now: datetime) -> None:
    """Refuse outcomes from after the logical now, with FastAPI's 422: nothing is known before it comes true."""
    faults = [
        _fault(
            "not_known_yet",
            ("outcomes", number, "label_timestamp"),
            f"is after now, {now.isoformat()}: an outcome is reported once it is known",
            outcome.label_timestamp.isoformat(),
        )
        for number, outcome in enumerate(outcomes)
        if outcome.label_timestamp - now > AHEAD
    ]
    if faults:
        raise RequestValidationError(faults)


def _fault(kind: str, where: tuple[str | int, ...], message: str, given: Any) -> dict[str, Any]:
    return {"type": kind, "loc": ("body", *where), "msg": message, "input": given}


def _present(value: Cell) -> bool | int | float | str:
    if value is None:
        raise ValueError("Field required: the model's feature service needs it")
    return value


def _key(value: Cell) -> str | int:
    value = _present(value)
    if isinstance(value, bool | float) or value == "":
        raise ValueError("should be a key: a text that is not empty, or a whole number")
    return sound(value) if isinstance(value, str) else _integer(value)


def _string(value: Cell) -> str:
    value = _present(value)
    if not isinstance(value, str) or not value:
        raise ValueError("should be a text that is not empty")
    return sound(value)


def _integer(value: Cell) -> int:
    value = _present(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("should be a whole number")
    if value not in WHOLE:
        raise ValueError("should be a whole number of at most 64 bits")
    return value


def _number(value: Cell) -> float:
    if type(value) is float and -LARGEST <= value <= LARGEST:  # as most cells are
        return value
    value = _present(value)
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except OverflowError:  # a whole number beyond the largest float
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("should be a finite number")
    if abs(number) > LARGEST:
        raise ValueError(f"should be a number of at most {LARGEST:g}")
    return number


def _timestamp(value: Cell) -> datetime:
    value = _present(value)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("should be a moment with its time zone, for example 2013-06-01T09:15:00Z")
    return in_utc(moment)


_PARSERS: Mapping[Kind, Callable[[Cell], Any]] = {
    "key": _key,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "timestamp": _timestamp,
    "category": _key,
}
