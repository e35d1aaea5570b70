"""Which rows a check looks at: the newest window whose labels are in, and a bounded draw from it.

Pure over frames as `PredictionLog.frame` returns them: no clock, no storage. Windows are whole UTC days, so a check
that is asked for twice on one day looks at the same rows.
Called by the watch flow: load `searched(as_of, config)` from the log, pick `newest_mature`, draw with `sample_by_day`.
"""

from datetime import UTC, datetime, time, timedelta

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt

from evergreen.errors import DataError
from evergreen.spec import MonitorConfig
from evergreen.types import Fact, Window

LOOK_BACK_WINDOWS = 4
"""How many window lengths back a mature window is searched for; labels that lag longer need longer windows."""


ARRIVED_SHARE = 0.99
"""Answers before a window are told by their outcomes once they are as old as this share of outcomes takes to come."""


class Maturity(Fact):
    """How much of what was served in a window has its outcome."""

    window: Window
    served: NonNegativeInt
    labelled: NonNegativeInt

    @property
    def share(self) -> float:
        """Labelled share of what was served; 0 when nothing was."""
        return self.labelled / self.served if self.served else 0.0


def newest(as_of: datetime, config: MonitorConfig) -> Window:
    """The last `window_days` whole UTC days that are over at `as_of`."""
    end = datetime.combine(as_of.astimezone(UTC).date(), time(), UTC)
    return Window(start=end - timedelta(days=config.window_days), end=end)


def searched(as_of: datetime, config: MonitorConfig) -> Window:
    """Everything `newest_mature` may look at: what to load from the log."""
    last = newest(as_of, config)
    return Window(start=last.end - LOOK_BACK_WINDOWS * last.length, end=last.end)


def maturity(frame: pd.DataFrame, window: Window, as_of: datetime) -> Maturity:
    """Count the rows served in `window` and those whose outcome was known at `as_of`.

    `frame` needs `event_timestamp` and `label_timestamp` (UTC; NaT while there is no outcome). A row without outcome
    counts as served, so a feed that stopped keeps a window immature instead of looking complete.
    """
    require_columns(frame, ("event_timestamp", "label_timestamp"))
    served = in_window(frame, window)
    labelled = int((served["label_timestamp"] <= as_of).sum())
    return Maturity(window=window, served=len(served), labelled=labelled)


def newest_mature(frame: pd.DataFrame, *, as_of: datetime, config: MonitorConfig) -> Window | None:
    """The newest window, moved back day by day, with predictions of which `min_label_share` have their outcome.

    None when there is none within `searched`: the labels of everything served are still out, or nothing was served.
    """
    window, earliest = newest(as_of, config), searched(as_of, config).start
    while window.start >= earliest:
        counted = maturity(frame, window, as_of)
        if counted.served and counted.share >= config.min_label_share:
            return window
        window = Window(start=window.start - timedelta(days=1), end=window.end - timedelta(days=1))
    return None


def sample_by_day(frame: pd.DataFrame, rows: int, *, seed: int) -> pd.DataFrame:
    """At most `rows` rows, the same share of every day's, in the order they had.

    Rows of one day resemble each other, so no day may be left out or count double. Which rows are drawn depends on the
    seed and on `example_id` only, not on the order of the frame: the draw can be repeated from what is on record.
    """
    if len(frame) <= rows:
        return frame
    require_columns(frame, ("example_id", "event_timestamp"))
    key = f"{seed:016d}"[-16:]  # pandas' keyed hash takes exactly 16 bytes
    lot = pd.util.hash_array(frame["example_id"].to_numpy(dtype=object), hash_key=key, categorize=False)
    moments = frame["event_timestamp"].to_numpy(dtype="datetime64[us]")
    _, day, rows_of = np.unique(moments.astype("datetime64[D]"), return_inverse=True, return_counts=True)
    order, first = np.lexsort((lot, day)), np.cumsum(rows_of) - rows_of
    quota = rows_of * (rows / len(frame))
    taken = quota.astype(np.int64)
    # Rows left by rounding down go to the largest remainders; the lot decides between equal ones, not the calendar.
    neediest = np.lexsort((lot[order[first]], taken - quota))[: rows - int(taken.sum())]
    taken[neediest] += 1
    place_in_day = np.empty(len(frame), dtype=np.int64)
    place_in_day[order] = np.arange(len(frame)) - np.repeat(first, rows_of)
    drawn: pd.DataFrame = frame[place_in_day < taken[day]]
    return drawn


def in_window(frame: pd.DataFrame, window: Window) -> pd.DataFrame:
    """The rows whose event time is in `window`."""
    moment = frame["event_timestamp"]
    return frame[(moment >= window.start) & (moment < window.end)]


def known_before(frame: pd.DataFrame, start: datetime) -> pd.DataFrame:
    """The answers from before `start`; `label` is what was known of them then, and of the youngest ones none.

    Outcomes that come early are no fair sample: where a loan defaults before it is paid back, the last days' are defaults.
    """
    require_columns(frame, ("event_timestamp", "label_timestamp", "label"))
    earlier = frame[frame["event_timestamp"] < start]
    came = (earlier["label_timestamp"] - earlier["event_timestamp"]).dropna().to_numpy(dtype="timedelta64[us]")
    delay = np.quantile(came.astype(np.int64), ARRIVED_SHARE) if len(came) else 0.0
    old = earlier["event_timestamp"] <= start - timedelta(microseconds=float(delay))
    known = old & (earlier["label_timestamp"] < start)
    return earlier.assign(label=earlier["label"].where(known))


def rows_that_show(frame: pd.DataFrame, columns: tuple[str, ...], version: int) -> pd.DataFrame:
    """The rows of `version`, and of every other one that logged all of `columns`: each holds something in some row of it.

    What a version does not take it does not log, and that is not missing. No rows where the columns are in none.
    """
    if not set(columns) <= set(frame.columns):
        return frame.iloc[:0]
    shown = {number for number, rows in frame.groupby("version") if rows[list(columns)].notna().any().all()}
    return frame[frame["version"].isin({*shown, version})]


def require_columns(frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Raise `DataError` naming the columns that `frame` lacks."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"monitoring needs the columns {missing}, but the rows have {list(frame.columns)}")
