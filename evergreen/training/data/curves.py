"""Numbers → their standard-normal scores, along each numeric's own curve: all rows of a column, or a few rows at once.

A curve is piecewise linear from knots to scores and flat beyond. numpy costs some microseconds a column however few its
rows are; a request has one row and some forty columns, so a few rows are looked up along all curves at once, by
`numpy.interp`'s own arithmetic: both ways give the same bits. Called by `preprocessing.py`.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW_ROWS = 64
"""Up to so many rows looking them up along all curves at once is the faster way."""
Curve = tuple[Sequence[float], Sequence[float]]
"""Knots, rising, and the score of each."""


class Curves:
    """The curves of all numerics, in column order."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self._curves = [(np.array(knots), np.array(scores)) for knots, scores in curves]
        self._columns = np.arange(len(curves)).reshape(-1, 1)
        self._first = np.array([[knots[0]] for knots, _ in curves]).reshape(-1, 1)
        self._last = np.array([[knots[-1]] for knots, _ in curves]).reshape(-1, 1)
        self._knots = _joined([knots for knots, _ in self._curves])
        self._scores = _joined([scores for _, scores in self._curves])
        slopes = [np.diff(scores) / np.diff(knots) for knots, scores in self._curves]
        self._slopes = _joined([np.append(slope, 0.0) for slope in slopes])  # flat from its last knot
        column_of = np.repeat(self._columns[:, 0], [len(knots) for knots, _ in self._curves])
        self._ordered = _by_column(column_of, self._knots)

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
        within = np.minimum(np.fmax(numbers, self._first), self._last)
        places = self._ordered.searchsorted(_by_column(self._columns, within), side="right")
        places -= 1  # the last knot at or below
        found = within - self._knots.take(places)
        found *= self._slopes.take(places)
        found += self._scores.take(places)
        if not np.isfinite(numbers).all():
            found[~np.isfinite(numbers)] = np.nan
        scores: NDArray[np.float32] = found.T.astype(np.float32)
        return scores


def _by_column(columns: NDArray[np.int64], numbers: NDArray[np.float64]) -> NDArray[np.complex128]:
    """In numpy's order, the real part first: so one search finds each column's numbers among the knots of that column."""
    ordered = np.empty(numbers.shape, dtype=np.complex128)
    ordered.real, ordered.imag = columns, numbers
    return ordered


def _joined(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.empty(0)
