"""What two versions said of the same rows: serving scores with both while a challenger is open.

Pure over a frame of `PredictionLog.since`: a row has the version that answered and, as `shadow_version`, `shadow_score` and
`shadow_latency_ms`, the one that was asked beside it (a score of NaN: it failed). Called by `tasks/release.py`.
"""

from datetime import date, datetime

import numpy as np
import pandas as pd

from evergreen.figures import row_losses
from evergreen.monitoring.windows import require_columns

NEEDED = (
    "event_timestamp",
    "version",
    "score",
    "label",
    "latency_ms",
    "shadow_version",
    "shadow_score",
    "shadow_latency_ms",
)
MIN_ROWS_A_DAY = 30
"""A day of fewer pairs says next to nothing and would count as much as the others."""


def said_by(frame: pd.DataFrame, version: int) -> pd.DataFrame:
    """Every row the version was asked to score, whether it answered or stood beside.

    `score` (NaN where it failed) and `latency_ms` are its own.
    """
    require_columns(frame, NEEDED)
    answered = frame[frame["version"] == version]
    beside = frame[frame["shadow_version"] == version]
    beside = beside.assign(version=version, score=beside["shadow_score"], latency_ms=beside["shadow_latency_ms"])
    return pd.concat([answered, beside]).sort_values("event_timestamp", kind="stable")


def paired_days(
    frame: pd.DataFrame, *, champion: int, challenger: int, as_of: datetime, min_label_share: float
) -> dict[date, float]:
    """Mean difference in log loss a row, challenger minus champion, of each finished day (UTC) whose outcomes are in.

    Oldest first; of models of two classes.

    A day counts once `min_label_share` of its pairs have outcomes (early ones are no fair sample) and they are at least
    `MIN_ROWS_A_DAY`.
    """
    theirs, mine = said_by(frame, champion), said_by(frame, challenger)
    both = theirs["score"].notna() & mine["score"].reindex(theirs.index).notna()
    theirs = theirs[both]
    mine = mine.loc[theirs.index]
    days = theirs["event_timestamp"].dt.floor("D")
    found: dict[date, float] = {}
    for day, rows in theirs.groupby(days):
        assert isinstance(day, pd.Timestamp)
        labelled = rows[rows["label"].notna()]
        finished = day + pd.Timedelta(days=1) <= as_of
        if not finished or len(labelled) < max(MIN_ROWS_A_DAY, min_label_share * len(rows)):
            continue
        labels = labelled["label"].to_numpy(dtype=float)
        losses = [
            row_losses("binary", labels, who.loc[labelled.index, "score"].to_numpy(dtype=float))
            for who in (mine, theirs)
        ]
        found[day.date()] = float(np.mean(losses[0] - losses[1]))
    return found
