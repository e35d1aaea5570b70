"""What two versions said of the same rows: serving scores with both while a challenger is open.

Pure over a frame of `PredictionLog.since`: a row has the version that answered and, as `shadow_version`, `shadow_score` and
`shadow_latency_ms`, the one that was asked beside it (a score of NaN: it failed); of more than two classes also
`probabilities` and `shadow_probabilities`. Called by `tasks/release.py`.
"""

from datetime import date, datetime

import numpy as np
import pandas as pd

from evergreen.figures import Floats, checked, row_losses
from evergreen.monitoring.windows import require_columns
from evergreen.types import Task

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
    if "shadow_probabilities" in frame:
        beside = beside.assign(probabilities=beside["shadow_probabilities"])
    return pd.concat([answered, beside]).sort_values("event_timestamp", kind="stable")


def paired_days(
    frame: pd.DataFrame,
    *,
    champion: int,
    challenger: int,
    as_of: datetime,
    min_label_share: float,
    task: Task = "binary",
) -> dict[date, float]:
    """Mean difference in loss a row, challenger minus champion, of each finished day (UTC) whose outcomes are in.

    Oldest first; in log loss, or in a regression as a share of the champion's mean squared error over these days.

    A day counts once `min_label_share` of its pairs have outcomes (early ones are no fair sample) and they are at least
    `MIN_ROWS_A_DAY`.
    """
    theirs, mine = said_by(frame, champion), said_by(frame, challenger)
    told = "probabilities" if task == "multiclass" else "score"
    both = theirs[told].notna() & mine[told].reindex(theirs.index).notna()
    theirs = theirs[both]
    mine = mine.loc[theirs.index]
    days = theirs["event_timestamp"].dt.floor("D")
    found: dict[date, float] = {}
    champions: list[Floats] = []
    for day, rows in theirs.groupby(days):
        assert isinstance(day, pd.Timestamp)
        labelled = rows[rows["label"].notna()]
        finished = day + pd.Timedelta(days=1) <= as_of
        if not finished or len(labelled) < max(MIN_ROWS_A_DAY, min_label_share * len(rows)):
            continue
        champions.append(losses_of(labelled, task))
        found[day.date()] = float(np.mean(losses_of(mine.loc[labelled.index], task) - champions[-1]))
    if task != "regression" or not found:
        return found
    unit = float(np.concatenate(champions).mean()) or 1.0
    return {day: difference / unit for day, difference in found.items()}


def losses_of(labelled: pd.DataFrame, task: Task) -> Floats:
    """(rows,) the loss of each row of one version's, all with outcomes. Raises `DataError` for a score that is none."""
    if task == "multiclass":
        scores = np.array([list(by_class.values()) for by_class in labelled["probabilities"]], dtype=float)
    else:
        scores = labelled["score"].to_numpy(dtype=float)
    return row_losses(task, *checked(task, labelled["label"].to_numpy(dtype=float), scores))
