"""Rows by the hour: the arithmetic under `faults.py`.

Pure numpy over arrays that are sorted by moment; knows no rule and no threshold.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HOUR = timedelta(hours=1)
DAY_HOURS = 24


@dataclass(frozen=True)
class Hours:
    """Sorted rows and the hours they lie in; hours without rows are there too."""

    moments: NDArray[np.datetime64]
    """(rows,)"""
    place: NDArray[np.int64]
    """(rows,) hour of each row, from 0."""
    first: np.datetime64
    rows: NDArray[np.int64]
    """(hours,)"""

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Hours":
        """The rows of a frame that is sorted by `event_timestamp`."""
        moments = frame["event_timestamp"].to_numpy(dtype="datetime64[us]")
        hours = moments.astype("datetime64[h]")
        place = (hours - hours[0]).astype(np.int64)
        return cls(moments, place, hours[0], np.bincount(place))

    @property
    def days(self) -> int:
        """So many days they span, the last one begun."""
        return -(-len(self.rows) // DAY_HOURS)

    @property
    def rows_a_day(self) -> float:
        """On average."""
        return float(self.rows.sum()) / self.days

    def counts(self, bad: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(hours,) rows of each that are bad."""
        return np.bincount(self.place[bad], minlength=len(self.rows))

    def at_least(self, start: pd.Timestamp) -> slice:
        """The hours from that of `start`."""
        return slice(max(int((start.to_datetime64().astype("datetime64[h]") - self.first).astype(np.int64)), 0), None)

    def since(self, start: pd.Timestamp) -> "Hours":
        """Those hours alone, without their rows' moments in order of the whole."""
        kept = self.at_least(start)
        rows = self.place >= kept.start
        first = self.first + np.timedelta64(kept.start, "h")
        return Hours(self.moments[rows], self.place[rows] - kept.start, first, self.rows[kept])

    def day_shares(self, bad: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(days,) share of bad rows of each 24 hours that have rows."""
        day = self.place // DAY_HOURS
        rows = np.bincount(day)
        shares: NDArray[np.float64] = np.bincount(day[bad], minlength=len(rows))[rows > 0] / rows[rows > 0]
        return shares

    def stretches(self, bad: NDArray[np.bool_], limit: float, days: int) -> float:
        """Excess over `limit`, in days' worth of rows, of a bad stretch of so many days: the worst but one.

        One bad stretch in the reference may be the very fault that is looked for.
        """
        counts, length = self.counts(bad), days * DAY_HOURS
        excesses = []
        for start in range(0, len(counts), length):
            part = slice(start, start + length)
            lone = Hours(self.moments, self.place, self.first + np.timedelta64(start, "h"), self.rows[part])
            found = worst_stretch(lone, counts[part], limit)
            excesses.append(0.0 if found is None else found.excess / self.rows_a_day)
        return sorted(excesses)[-2] if len(excesses) > 1 else 0.0


@dataclass(frozen=True)
class Stretch:
    """Hours in a row with more bad rows than a share allows."""

    first: datetime
    rows: int
    share: float
    excess: float
    """Bad rows beyond the allowed share."""


def worst_stretch(hours: Hours, bad: NDArray[np.int64], limit: float) -> Stretch | None:
    """The hours in a row whose bad rows exceed `limit` of their rows by most (Kadane's scan); None where none do."""
    excess = bad - limit * hours.rows
    best, best_span, running, begin = 0.0, (0, 0), 0.0, 0
    for hour, value in enumerate(excess.tolist()):
        if running <= 0.0:
            running, begin = 0.0, hour
        running += value
        if running > best:
            best, best_span = running, (begin, hour + 1)
    if best <= 0.0:
        return None
    span = slice(*best_span)
    rows = int(hours.rows[span].sum())
    first: datetime = (hours.first + np.timedelta64(best_span[0], "h")).astype("datetime64[us]").item()
    return Stretch(first.replace(tzinfo=UTC), rows, float(bad[span].sum()) / rows, best)


@dataclass(frozen=True)
class Steps:
    """At each hour: the mean of some hours before it beside that of as many hours from it on."""

    hours: NDArray[np.datetime64]
    left: NDArray[np.float64]
    right: NDArray[np.float64]
    later: NDArray[np.float64]
    """The mean of the day from it on, or of what there is of it; NaN where that is nothing."""

    @property
    def sizes(self) -> NDArray[np.float64]:
        """How far apart the two means are."""
        return np.abs(self.right - self.left)

    def kept(self, at: int) -> bool:
        """The day after stays on the step's side of its middle: it was no spike."""
        middle = (self.left[at] + self.right[at]) / 2
        return bool((self.later[at] - middle) * (self.right[at] - self.left[at]) > 0)


def steps_of(hours: Hours, values: NDArray[np.float64], span: int) -> Steps:
    """Steps of `values` (rows,), NaN where missing, over `span` hours on either side, of which half must have values."""
    known = ~np.isnan(values)
    rows = np.bincount(hours.place[known], minlength=len(hours.rows))
    sums = np.bincount(hours.place[known], weights=values[known], minlength=len(hours.rows))
    total, count, filled = (np.concatenate([[0], np.cumsum(x)]) for x in (sums, rows, rows > 0))
    at = np.arange(len(hours.rows) + 1)
    before, after, day = (np.clip(at + shift, 0, len(hours.rows)) for shift in (-span, span, DAY_HOURS))
    enough = max(span // 2, 1)
    usable = (filled[at] - filled[before] >= enough) & (filled[after] - filled[at] >= enough)
    at, before, after, day = at[usable], before[usable], after[usable], day[usable]

    def mean(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = count[high] - count[low]
        means: NDArray[np.float64] = np.divide(
            total[high] - total[low], rows, out=np.full(len(rows), np.nan), where=rows > 0
        )
        return means

    return Steps(hours.first + at.astype("timedelta64[h]"), mean(before, at), mean(at, after), mean(at, day))


def longest_run(values: NDArray[np.float64]) -> tuple[int, int]:
    """How long the longest run of equal values is, and where it begins."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(values) != 0) + 1, [len(values)]])
    lengths = np.diff(edges)
    longest = int(lengths.argmax())
    return int(lengths[longest]), int(edges[longest])


def numbers_of(column: pd.Series) -> NDArray[np.float64]:
    """Floats; what is no finite number is missing."""
    values = column if pd.api.types.is_numeric_dtype(column) else pd.to_numeric(column, errors="coerce")
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def moment_of(at: np.datetime64) -> datetime:
    """An aware moment."""
    moment: datetime = at.astype("datetime64[us]").item()
    return moment.replace(tzinfo=UTC)
