"""What the two arms of an A/B test did: no row was scored for the comparison by both, so days and entities carry it.

Pure over a frame of `PredictionLog.since`: a row has the version that answered and, as `routed_by`, the entity that the test
gave to that version. Called by `tasks/ab_test.py`; judged in `evergreen/ab_test.py`.
"""

import math
from datetime import datetime

import numpy as np
import pandas as pd

from evergreen.monitoring.shadow import MIN_ROWS_A_DAY, losses_of
from evergreen.monitoring.windows import require_columns
from evergreen.types import AbTestFigures, Arm, Task

NEEDED = ("event_timestamp", "version", "score", "label", "routed_by")


def compare_arms(
    frame: pd.DataFrame,
    *,
    champion: int,
    challenger: int,
    as_of: datetime,
    min_label_share: float,
    task: Task = "binary",
) -> AbTestFigures:
    """Both sides over the finished days (UTC) since the test began; see `AbTestFigures`.

    A day's difference counts once `min_label_share` of its rows have outcomes (early ones are no fair sample) and each
    side has `MIN_ROWS_A_DAY` of them. Entities that met both versions, because one of them failed, count on neither side.
    Raises `DataError` naming missing columns.
    """
    require_columns(frame, NEEDED)
    rows = frame[frame["routed_by"].notna() & frame["version"].isin((champion, challenger))]
    rows = rows.assign(day=rows["event_timestamp"].dt.floor("D"))
    rows = rows[rows["day"] + pd.Timedelta(days=1) <= as_of]
    met = rows.groupby("routed_by")["version"].nunique()
    crossed = met.index[met > 1]
    rows = rows[~rows["routed_by"].isin(crossed)]
    counted = _counted(rows, champion, challenger, min_label_share)
    counted = counted.assign(loss=_losses(counted, task))
    by_day = counted.groupby(["day", "version"])["loss"].mean().unstack()
    days = by_day[challenger] - by_day[champion] if len(by_day) else pd.Series(dtype=float)
    sides = {version: _arm(version, rows, counted) for version in (champion, challenger)}
    unit = (sides[champion].loss or 1.0) if task == "regression" else 1.0
    return AbTestFigures(
        champion=sides[champion],
        challenger=sides[challenger],
        crossed=len(crossed),
        days=tuple((days / unit).tolist()),
        entity_error=_entity_error(counted) / unit,
    )


def _counted(rows: pd.DataFrame, champion: int, challenger: int, min_label_share: float) -> pd.DataFrame:
    """The labelled rows of the days that count."""
    labelled = rows[rows["label"].notna()]
    sides = labelled.groupby(["day", "version"]).size().unstack(fill_value=0).reindex(columns=[champion, challenger])
    enough = (sides.min(axis=1, skipna=False) >= MIN_ROWS_A_DAY) & (
        sides.sum(axis=1) >= min_label_share * rows.groupby("day").size().reindex(sides.index)
    )
    return labelled[labelled["day"].isin(sides.index[enough])]


def _losses(counted: pd.DataFrame, task: Task) -> "pd.Series[float]":
    """One version at a time, since two may know different classes."""
    found = pd.Series(0.0, index=counted.index)
    for _, rows in counted.groupby("version"):
        found.loc[rows.index] = losses_of(rows, task)
    return found


def _arm(version: int, rows: pd.DataFrame, counted: pd.DataFrame) -> Arm:
    mine, judged = rows[rows["version"] == version], counted[counted["version"] == version]
    return Arm(
        version=version,
        entities=int(mine["routed_by"].nunique()),
        rows=len(mine),
        labelled=len(judged),
        loss=float(judged["loss"].mean()) if len(judged) else None,
    )


def _entity_error(counted: pd.DataFrame) -> float:
    """Standard error of the mean over days that the days' own scatter does not show: an entity has one arm on all of them.

    Clusters by entity less clusters by entity and day, as variances by two ways of clustering are put together (Cameron,
    Gelbach & Miller 2011, "Robust Inference with Multiway Clustering"); the third term is the scatter of the days.
    """
    if counted.empty:
        return 0.0
    sides = counted.groupby(["day", "version"])["loss"]
    pull = (counted["loss"] - sides.transform("mean")) / (sides.transform("size") * counted["day"].nunique())
    by_entity = pull.groupby(counted["routed_by"]).sum()
    by_both = pull.groupby([counted["routed_by"], counted["day"]]).sum()
    return math.sqrt(max(float(np.square(by_entity).sum() - np.square(by_both).sum()), 0.0))
