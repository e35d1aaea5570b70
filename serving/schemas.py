"""What goes over the wire: requests and answers.

A request is validated on the event loop, where everybody waits for it. So it is looked at first how much there is of it, and
of rows that are none only the first is named. What columns a row must have depends on the model: see `columns.py`.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    GetPydanticSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from evergreen.adapters.prediction_log import OutcomeKind as Kinds
from evergreen.figures import LABELS, odd_labels
from evergreen.spec import MOST_ROWS
from evergreen.types import Prediction, Release, Task, Utc
from serving.faults import MOST_FAULTS, fault
from serving.limits import MOST_COLUMNS, MOST_FIELDS, MOST_OUTCOMES, bounded, too_long
from serving.loaded import Kind

UNSOUND = re.compile("[\0\ud800-\udfff]")
"""Half a surrogate pair cannot be encoded, and PostgreSQL stores no text with a NUL."""
LARGEST = 3.4e38
"""The largest number a model can take: they count in float32."""
AHEAD = timedelta(minutes=5)
"""How far a client's clock may be ahead of ours."""


def sound(text: str) -> str:
    """The text itself; raises `ValueError` where a store could not keep it."""
    if UNSOUND.search(text):
        raise ValueError("should be valid Unicode without NUL characters")
    return text


def _cell(_kind: Any, _make: Any) -> CoreSchema:
    """As pydantic would make it, but that a cell of none of these kinds is one fault, and not one of each kind."""
    told = "should be a text, a number, true, false or null"
    return core_schema.nullable_schema(
        core_schema.union_schema(
            [core_schema.bool_schema(), core_schema.int_schema(), core_schema.float_schema(), core_schema.str_schema()],
            custom_error_type="cell_type",
            custom_error_message=told,
        )
    )


Cell = Annotated[bool | int | float | str | None, GetPydanticSchema(_cell)]
ExampleId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(sound)]


class Message(BaseModel):
    """Base of all requests and answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Asked(Message):
    """Base of all requests."""

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise too_long(len(given), f"fields, of which only {', '.join(cls.model_fields)} are known")
        return given


class Row(BaseModel):
    """One thing to predict: its entity keys and request columns beside an optional `example_id`."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        use_attribute_docstrings=True,
        json_schema_extra={
            "maxProperties": MOST_COLUMNS,
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
            ],
        },
    )
    __pydantic_extra__: dict[str, Cell]

    example_id: ExampleId | None = None
    """Names the row in the log, for its outcome and its routing; one is made up, in the order of time, where there is none."""


def _as_list(rows: Any) -> Any:
    if type(rows) is dict:
        rows = [rows]
        if len(rows[0]) <= MOST_COLUMNS:  # as most requests are
            return rows
    return bounded(rows, "rows", MOST_ROWS, MOST_COLUMNS)


def _few_outcomes(outcomes: Any) -> Any:
    return bounded(outcomes, "outcomes", MOST_OUTCOMES, MOST_FIELDS)


class PredictRequest(Asked):
    """One row or many, of what the features are looked up by; or, with `features` = given, of the features themselves."""

    rows: Annotated[
        list[Row],
        FailFast(),
        Field(min_length=1),
        BeforeValidator(
            _as_list,
            json_schema_input_type=Row | Annotated[list[Row], Field(min_length=1, max_length=MOST_ROWS)],
        ),
    ]
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


class OutcomesRequest(Asked):
    """Outcomes to keep beside the predictions."""

    outcomes: Annotated[
        list[Outcome],
        FailFast(),
        Field(min_length=1, max_length=MOST_OUTCOMES),
        BeforeValidator(
            _few_outcomes,
            json_schema_input_type=Annotated[list[Outcome], Field(min_length=1, max_length=MOST_OUTCOMES)],
        ),
    ]


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


def require_labels(outcomes: Sequence[Outcome], task: Task) -> None:
    """Refuse labels that are not the task's, with FastAPI's 422."""
    odd = odd_labels(task, np.array([outcome.label for outcome in outcomes])).tolist()
    told = f"should be {LABELS[task]}, as the model is {task}"
    _refuse(
        fault("label", ("outcomes", number, "label"), told, outcome.label)
        for number, outcome in enumerate(outcomes)
        if odd[number]
    )


def require_known(outcomes: Sequence[Outcome], now: datetime) -> None:
    """Refuse outcomes from after the logical now, with FastAPI's 422: nothing is known before it comes true."""
    told = f"is after now, {now.isoformat()}: an outcome is reported once it is known"
    _refuse(
        fault("not_known_yet", ("outcomes", number, "label_timestamp"), told, outcome.label_timestamp.isoformat())
        for number, outcome in enumerate(outcomes)
        if outcome.label_timestamp - now > AHEAD
    )


def _refuse(faults: Iterable[dict[str, Any]]) -> None:
    """Raise FastAPI's 422 of the first ones, if there are any."""
    if first := list(islice(faults, MOST_FAULTS)):
        raise RequestValidationError(first)
