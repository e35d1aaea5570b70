"""From one snapshot of history to what a backtest plays: the real year, and copies of it with shuffled days.

Knows rows and days; models come from a function that trains and scores. Called by `tasks/backtest.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.monitoring.backtest import History, Weights
from evergreen.monitoring.backtest_figures import shuffled_days

Train = Callable[[pd.DataFrame, datetime], NDArray[np.float64]]
"""Scores of all rows by a model trained on those of the given ones that are before a moment."""


@dataclass(frozen=True)
class Span:
    """Slots from `first` on, `days` apart, up to `end`."""

    first: datetime
    end: datetime
    days: int

    @property
    def slots(self) -> tuple[datetime, ...]:
        """All of them; the last one ends the last week."""
        count = int((self.end - self.first) / timedelta(days=self.days))
        if count < 2:
            raise DataError(f"from {self.first} to {self.end} there are no two windows of {self.days} days to play")
        return tuple(self.first + timedelta(days=self.days) * n for n in range(count + 1))


def real(rows: pd.DataFrame, span: Span, weights: Weights) -> History:
    """History as it was; `rows` have `event_timestamp`, `label_timestamp` and `label`."""
    moments, known, labels = _arrays(rows)
    return History(moments, known, labels, span.slots, cuts(rows, span.slots[:-1]), weights)


def cuts(rows: pd.DataFrame, slots: Sequence[datetime]) -> tuple[datetime, ...]:
    """By slot, up to when all outcomes were in at it: rows before this may train."""
    moments, known, _ = _arrays(rows)
    found = []
    for slot in slots:
        at = np.datetime64(slot.astimezone(UTC).replace(tzinfo=None), "us")
        waiting = moments[(moments < at) & (known >= at)]
        found.append(slot if not len(waiting) else waiting.min().item().replace(tzinfo=UTC))
    return tuple(found)


def shuffled(rows: pd.DataFrame, span: Span, train: Train, seed: int) -> History:
    """A copy whose days are dealt out anew, with a first model of its own; nothing drifts in it and nothing is retrained."""
    moments, known, labels = _arrays(rows)
    moved = shuffled_days(moments, seed)
    moments, known = moments + moved, known + moved
    # Pandas would keep the resolution of days otherwise.
    redated = rows.assign(
        event_timestamp=pd.to_datetime(moments, utc=True), label_timestamp=pd.to_datetime(known, utc=True)
    )
    [cut] = cuts(redated, span.slots[:1])
    scores = train(redated[redated["event_timestamp"] < span.first], cut)

    def first_model(_slot: int, _tuned: tuple[int, ...]) -> NDArray[np.float64]:
        return scores

    return History(moments, known, labels, span.slots, (cut,) * (len(span.slots) - 1), first_model)


def _arrays(
    rows: pd.DataFrame,
) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64], NDArray[np.float64]]:
    times = (rows[name].to_numpy(dtype="datetime64[us]") for name in ("event_timestamp", "label_timestamp"))
    moments, known = times
    return moments, known, rows["label"].to_numpy(dtype=np.float64)
