"""From one snapshot of history to what a backtest plays: the real year, and copies of it with shuffled days.

Knows rows and days; models come in as scores. Called by `tasks/rehearsal.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.monitoring.backtest.figures import shuffled_days
from evergreen.monitoring.backtest.play import History, Moment, Weights


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


def shuffled(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows whose days are dealt out anew, sorted as a snapshot is: nothing drifts in them."""
    moments, known, _ = _arrays(rows)
    moved = shuffled_days(moments, seed)
    # Pandas would keep the resolution of days otherwise.
    redated = rows.assign(
        event_timestamp=pd.to_datetime(moments + moved, utc=True),
        label_timestamp=pd.to_datetime(known + moved, utc=True),
    )
    return redated.sort_values(["event_timestamp", "example_id"], ignore_index=True)


def around(rows: pd.DataFrame, moment: Moment) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """What a slot's champion learnt from, before the window that ends there; as long a stretch before it; and that window.

    `rows` are sorted by `event_timestamp`.
    """
    history, asked = moment.history, rows["event_timestamp"]
    start, end = (pd.Timestamp(at) for at in history.slots[moment.slot - 1 : moment.slot + 1])
    learnt = rows[asked < min(pd.Timestamp(history.cuts[moment.champion.learnt]), start)]
    return learnt, rows[(asked >= start - (end - start)) & (asked < start)], rows[(asked >= start) & (asked < end)]


def _arrays(
    rows: pd.DataFrame,
) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64], NDArray[np.float64]]:
    times = (rows[name].to_numpy(dtype="datetime64[us]") for name in ("event_timestamp", "label_timestamp"))
    moments, known = times
    return moments, known, rows["label"].to_numpy(dtype=np.float64)
