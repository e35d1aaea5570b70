"""Rows of a request → columns of a question, checked against what the model's feature service needs.

A fault has the same shape as any other 422: its place in the body, and what is wrong there. Used by `predict.py` only.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from fastapi.exceptions import RequestValidationError

from evergreen.types.fact import in_utc
from serving.faults import MOST_FAULTS, fault
from serving.loaded import Kind
from serving.schemas import LARGEST, Cell, Row, sound

WHOLE = range(-(2**63), 2**63)
"""Whole numbers that fit a column."""
NEAR_NAMES = 3
"""So many unknown columns of a request are told which known one is near: looking takes a millisecond."""
LONGEST_NAME = 100
"""And it takes longer for a longer name."""


def columns_of(
    rows: Sequence[Row], needs: Mapping[str, Kind], max_rows: int, *, may_miss: bool = False
) -> dict[str, list[Any]]:
    """A column for each of `needs`, parsed; raises FastAPI's 422 naming the fields that are wrong, the first `MOST_FAULTS`.

    With `may_miss` a field that is null or left out is None.
    """
    faults: list[dict[str, Any]] = []
    if len(rows) > max_rows:
        message = f"{len(rows)} rows in one request, [serve].max_rows is {max_rows}; send them in several requests"
        raise RequestValidationError([fault("too_long", ("rows",), message, len(rows))])
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
                faults.append(fault(missing, ("rows", number, name), str(error), given.get(name)))
        if not given.keys() <= needs.keys():
            before = sum(one["type"] == "extra_forbidden" for one in faults)
            faults.extend(_unknown(number, given, needs, before))
        if row.example_id is not None and seen.setdefault(row.example_id, number) != number:
            message = f"row {seen[row.example_id]} has the same example_id; an example is asked about once a request"
            faults.append(fault("repeated", ("rows", number, "example_id"), message, row.example_id))
        if len(faults) >= MOST_FAULTS:
            break
    if faults:
        raise RequestValidationError(faults[:MOST_FAULTS])
    return columns


def _unknown(number: int, given: Mapping[str, Any], needs: Mapping[str, Kind], before: int) -> Iterator[dict[str, Any]]:
    """A fault for each column of a row that is not among `needs`, after `before` of the rows before it."""
    unknown = (name for name in given if name not in needs)
    for place, name in enumerate(islice(unknown, MOST_FAULTS), before):
        hint = "/models has those the model takes"
        if place < NEAR_NAMES and len(name) <= LONGEST_NAME:
            near = difflib.get_close_matches(name, [*needs, "example_id"], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"this model takes {sorted(needs)}"
        yield fault("extra_forbidden", ("rows", number, name), f"unknown column; {hint}", given[name])


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
