"""Numbers → their standard-normal scores, along each numeric's own curve: all rows of a column, or a few rows at once.

A curve is piecewise linear from knots to scores and flat beyond. numpy costs some microseconds a column however few its
rows are; a request has one row and some forty columns, so a few rows are looked up along all curves at once, by
`numpy.interp`'s own arithmetic: both ways give the same bits. Called by `preprocessing.py`.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW_ROWS = 16
"""Up to so many rows looking them up along all curves at once is the faster way."""
Curve = tuple[Sequence[float], Sequence[float]]
"""Knots, rising, and the score of each."""


class Curves:
    """The curves of all numerics, in column order."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self._curves = [(np.array(knots), np.array(scores)) for knots, scores in curves]
        longest = max((len(knots) for knots, _ in curves), default=0)
        # Beyond its last knot a curve is filled with infinity, which no number reaches.
        self._knots = np.full((len(curves), 1, longest), np.inf)
        self._scores, self._slopes = np.zeros((2, len(curves), longest))
        for i, (knots, scores) in enumerate(self._curves):
            self._knots[i, 0, : len(knots)], self._scores[i, : len(knots)] = knots, scores
            self._slopes[i, : len(knots) - 1] = np.diff(scores) / np.diff(knots)
        self._first = np.array([[knots[0]] for knots, _ in self._curves]).reshape(-1, 1)
        self._last = np.array([[knots[-1]] for knots, _ in self._curves]).reshape(-1, 1)
        self._places = longest * np.arange(len(curves)).reshape(-1, 1) - 1

    def scores(self, numbers: "Sequence[NDArray[np.float32]] | NDArray[np.float32]", rows: int) -> NDArray[np.float32]:
        """(rows, numerics), NaN where a number is not finite. `numbers` holds (rows,) for each numeric."""
        if rows <= FEW_ROWS:
            return self._few(np.asarray(numbers, dtype=np.float64).reshape(len(self._curves), rows))
        found = np.empty((rows, len(self._curves)), dtype=np.float32)
        for i, (values, (knots, scores)) in enumerate(zip(numbers, self._curves, strict=True)):
            found[:, i] = np.interp(values, knots, scores)
            with np.errstate(invalid="ignore"):  # infinities of both signs
                finite = math.isfinite(values.sum(dtype=np.float64))
            if not finite:
                found[~np.isfinite(values), i] = np.nan
        return found

    def _few(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        within = np.minimum(np.maximum(numbers, self._first), self._last)
        places = np.count_nonzero(self._knots <= within[:, :, np.newaxis], axis=2)  # knots at or below
        places += self._places
        found = within - self._knots.take(places)
        found *= self._slopes.take(places)
        found += self._scores.take(places)
        if not np.isfinite(numbers).all():
            found[~np.isfinite(numbers)] = np.nan
        scores: NDArray[np.float32] = found.T.astype(np.float32)
        return scores
