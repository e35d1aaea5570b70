"""Numbers → their standard-normal scores, along each numeric's own curve: all rows of a column, or a few rows at once.

A curve is piecewise linear from knots to scores and flat beyond. numpy costs some microseconds a column however few its
rows are; a request has one row and some forty columns, so a few rows are looked up one by one, in numpy's own arithmetic:
both ways give the same bits. Called by `preprocessing.py`.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW_ROWS = 8
"""Up to so many rows looking up one by one is the faster way."""
Curve = tuple[Sequence[float], Sequence[float]]
"""Knots, rising, and the score of each."""


class Curves:
    """The curves of all numerics, in column order."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self._lists = [(list(knots), list(scores)) for knots, scores in curves]
        self._arrays = [(np.array(knots), np.array(scores)) for knots, scores in curves]

    def scores(self, numbers: "Sequence[NDArray[np.float32]] | NDArray[np.float32]", rows: int) -> NDArray[np.float32]:
        """(rows, numerics), NaN where a number is not finite. `numbers` holds (rows,) for each numeric."""
        if rows <= FEW_ROWS:
            return self._few(np.asarray(numbers, dtype=np.float32).reshape(len(self._lists), rows))
        found = np.empty((rows, len(self._arrays)), dtype=np.float32)
        for i, (values, (knots, scores)) in enumerate(zip(numbers, self._arrays, strict=True)):
            found[:, i] = np.interp(values, knots, scores)
            with np.errstate(invalid="ignore"):  # infinities of both signs
                finite = math.isfinite(values.sum(dtype=np.float64))
            if not finite:
                found[~np.isfinite(values), i] = np.nan
        return found

    def _few(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        found = [
            [_score(value, knots, scores) for value in values]
            for values, (knots, scores) in zip(numbers.tolist(), self._lists, strict=True)
        ]
        return np.array(found, dtype=np.float32).reshape(numbers.shape).T.copy()


def _score(value: float, knots: list[float], scores: list[float]) -> float:
    """As `numpy.interp`, to the last bit, but that infinity is missing too."""
    if not math.isfinite(value):
        return math.nan
    place = bisect_right(knots, value) - 1
    if place < 0:
        return scores[0]
    if place >= len(knots) - 1 or knots[place] == value:
        return scores[place]
    slope = (scores[place + 1] - scores[place]) / (knots[place + 1] - knots[place])
    return slope * (value - knots[place]) + scores[place]
