"""Rows → one histogram a day and feature: all that calibrated drift needs to know of them.

A `Binning` is fitted once, to the reference; then rows of any number become counts of (days, bins), which add up: a
chunk at a time, a day at a time, on several machines. Exact, not sampled, and its size depends on days and features
only. Pure numpy over frames; called by `drift.py` and by whoever keeps counts for it. To bin another kind of column,
add it to `fit_binning` and `_codes`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.monitoring.hours import numbers_of
from evergreen.monitoring.windows import require_columns

Kind = Literal["numeric", "categorical"]
QUANTILES = 16
"""Bins of a number: equally filled ones of the reference."""
CATEGORIES = 50
"""The most frequent ones have a bin each; all others, unseen ones among them, share one."""
CHUNK_ROWS = 200_000
"""Rows that are coded at a time: what bounds the memory."""
FITTING_ROWS = 50_000
"""Rows the quantiles are read off, evenly spaced over the reference."""


@dataclass(frozen=True)
class Binning:
    """Where a value of each feature belongs; its last bin holds what is missing."""

    edges: dict[str, NDArray[np.float64]]
    """Of numbers: ascending, values equal to an edge lie above it."""
    categories: dict[str, pd.Index]
    """Of categories: those with a bin of their own."""

    @property
    def features(self) -> tuple[str, ...]:
        """In the order of the bins."""
        return (*self.edges, *self.categories)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(features,) first bin of each feature in a row of counts."""
        return np.concatenate([[0], np.cumsum(self._widths)[:-1]]).astype(np.int64)

    @property
    def bins(self) -> int:
        """Of all features together."""
        return int(sum(self._widths))

    @property
    def _widths(self) -> list[int]:
        return [len(e) + 2 for e in self.edges.values()] + [len(c) + 2 for c in self.categories.values()]


@dataclass(frozen=True)
class DayCounts:
    """How many rows of each day fell in each bin."""

    days: NDArray[np.datetime64]
    """(days,) UTC days with rows, ascending."""
    counts: NDArray[np.int64]
    """(days, bins)."""

    def __add__(self, other: "DayCounts") -> "DayCounts":
        days, place = np.unique(np.concatenate([self.days, other.days]), return_inverse=True)
        counts = np.zeros((len(days), self.counts.shape[1]), dtype=np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return DayCounts(days, counts)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "DayCounts":
        return DayCounts(self.days[chosen], self.counts[chosen])


def fit_binning(reference: pd.DataFrame, inputs: Mapping[str, Kind]) -> Binning:
    """Bins of `inputs` that the reference's rows fill evenly; raises `DataError` where it is empty or lacks a column."""
    require_columns(reference, tuple(inputs))
    if reference.empty:
        raise DataError("the reference of a drift check has no rows; choose a window that has some")
    some = reference.iloc[:: max(len(reference) // FITTING_ROWS, 1)]
    numbers = {name: numbers_of(some[name]) for name, kind in inputs.items() if kind == "numeric"}
    inner = np.arange(1, QUANTILES) / QUANTILES
    return Binning(
        edges={
            name: np.unique(np.quantile(v[~np.isnan(v)], inner)) if (~np.isnan(v)).any() else np.empty(0)
            for name, v in numbers.items()
        },
        categories={
            name: pd.Index(reference[name].value_counts().index[:CATEGORIES].astype(object))
            for name, kind in inputs.items()
            if kind == "categorical"
        },
    )


def count_days(frame: pd.DataFrame, binning: Binning) -> DayCounts:
    """Histograms of the UTC days of `event_timestamp`; rows may come in any order.

    Memory beyond the frame's own is that of `CHUNK_ROWS` codes and of the counts. Raises `DataError` naming columns that
    are missing.
    """
    require_columns(frame, ("event_timestamp", *binning.features))
    day = frame["event_timestamp"].to_numpy(dtype="datetime64[us]").astype("datetime64[D]")
    days, place = np.unique(day, return_inverse=True)
    counts = np.zeros((len(days), binning.bins), dtype=np.int64)
    for start in range(0, len(frame), CHUNK_ROWS):
        part = frame.iloc[start : start + CHUNK_ROWS]
        for first, width, codes in _codes(part, binning):
            cells = place[start : start + CHUNK_ROWS] * width + codes
            counts[:, first : first + width] += np.bincount(cells, minlength=len(days) * width).reshape(-1, width)
    return DayCounts(days, counts)


def _codes(part: pd.DataFrame, binning: Binning) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Of each feature: its first bin, how many it has, and each row's bin among them."""
    first = 0
    for name, edges in binning.edges.items():
        values = numbers_of(part[name])
        codes = np.searchsorted([*edges, np.inf], values, side="right")  # what is missing sorts behind everything
        yield first, len(edges) + 2, codes
        first += len(edges) + 2
    for name, known in binning.categories.items():
        codes = known.get_indexer(pd.Index(part[name].astype(object)))
        codes = np.where(codes >= 0, codes, np.where(part[name].isna(), len(known) + 1, len(known)))
        yield first, len(known) + 2, codes
        first += len(known) + 2
