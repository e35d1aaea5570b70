"""A column of rows as a version takes it, and as it is logged: a request's lists, or a frame's arrays.

What is missing or infinite is told alike whichever way it came. Called by `scoring.py`.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evergreen.training.data.preprocessing import category_key
from evergreen.types import Cell


def picked(column: Sequence[Any] | NDArray[Any], rows: Sequence[int]) -> list[Any] | NDArray[Any]:
    """Some rows of it, by place."""
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


def listed(values: Sequence[Any], kind: Literal["numeric", "categorical"]) -> list[Cell]:
    """A request's cells: None where missing or infinite. Arrays would cost some microseconds a column, for one row too."""
    if kind == "categorical":
        return [value if type(value) is str else category_key(value) for value in values]
    return [None if value is None or not isfinite(value) else float(value) for value in values]


def typed(values: NDArray[Any], kind: Literal["numeric", "categorical"]) -> NDArray[Any]:
    """Numbers as float64 with NaN where missing or infinite; categories as objects with None where missing."""
    if kind == "numeric":
        numbers = np.asarray(values, dtype=np.float64)  # None becomes NaN
        return np.where(np.isfinite(numbers), numbers, np.nan)
    categories = np.empty(len(values), dtype=object)
    categories[:] = [category_key(value) for value in values]
    return categories


def cells(column: list[Cell] | NDArray[Any]) -> list[Cell]:
    """As they are logged: None where missing."""
    if isinstance(column, list):
        return column
    values = column.tolist()
    return values if column.dtype == object else [None if value != value else value for value in values]
