"""Figures of a window whose outcomes are partly out: each one that is in stands for those that are not.

Early outcomes are no fair sample: a flight that is late lands late. So an outcome that is in is weighted by one over
the chance that its like would be in by now (inverse probability of censoring weights; Robins & Rotnitzky 1992). Its
like are rows of the same label and a similar score, the two things a loss is made of. The chance is read off all
outcomes that are in, by hour since the question. Those are truncated, since a delay longer than a row's age cannot have
been seen yet; the product-limit estimator in reversed time takes that into account (Lagakos, Barraj & De Gruttola 1988,
"Nonparametric analysis of truncated survival data, with application to AIDS"), as is done with reporting delays.

Answers so young that of some label next to none can be in are left out and said to be. What it rests on: delays, given
label and score, are today what they were over the rows it is given, and whatever has not come by the oldest row's age
will not matter. Pure numpy over frames of `PredictionLog.frame`; called by the watch's tasks.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.figures import Floats
from evergreen.monitoring.estimate import truth_and_scores
from evergreen.monitoring.intervals import blocks, figures_by_days
from evergreen.monitoring.windows import in_window, require_columns
from evergreen.spec import MonitorConfig
from evergreen.types import CensoredPerformance, Task, Window

MIN_ARRIVED = 0.1
"""Rows younger than the age at which this share of their kind is in are left out: weights stay below its inverse."""
MIN_ROWS = 50
"""Outcomes that a stratum needs to speak for itself; smaller ones are told by their label's, or by all."""
SCORE_PARTS, LABEL_PARTS = 3, 4
"""Into how many equal parts scores, and the labels of a regression, are cut."""
NEEDED = ("event_timestamp", "score", "label", "label_timestamp")


@dataclass(frozen=True)
class _Arrivals:
    """How fast outcomes come, by stratum."""

    strata: NDArray[np.int64]
    """(labelled rows,) of each row."""
    curves: dict[int, Floats]
    """Stratum → (hours,) the share of its outcomes that is in at each age."""

    def first_age(self) -> int | None:
        """The age in hours from which every stratum has `MIN_ARRIVED` in; None where none gets there."""
        ages = [np.flatnonzero(curve >= MIN_ARRIVED) for curve in self.curves.values()]
        return max(int(age[0]) for age in ages) if ages and all(len(age) for age in ages) else None


def censored_performance(
    rows: pd.DataFrame, window: Window, *, as_of: pd.Timestamp, task: Task, config: MonitorConfig, seed: int
) -> CensoredPerformance | None:
    """Correct the figures of `window` for the outcomes that are not in at `as_of`.

    `rows`, with `NEEDED` and of a multiclass model `probabilities`, are the answers of one version in the window and as
    long before it as is at hand: the delays are read off all of them. None where every outcome of the window is in, or
    fewer than `min_labels` are old enough to be used.
    """
    require_columns(rows, NEEDED)
    served = in_window(rows, window)
    if served.empty or served["label"].notna().all():
        return None
    labelled = rows[rows["label"].notna()]
    if len(labelled) < config.min_labels:
        return None
    arrivals = _arrivals(labelled, as_of, task)
    first = arrivals.first_age()
    if first is None:
        return None
    covered = served[_hours(as_of - served["event_timestamp"]) >= first]
    known = labelled.index.isin(covered.index)
    used = labelled[known]
    if len(used) < config.min_labels:
        return None
    weights = _weights(arrivals, known, _hours(as_of - used["event_timestamp"]))
    truth, scores = truth_and_scores(used, task)
    place = blocks(used["event_timestamp"], config.block_days)
    naive = figures_by_days(task, truth, scores, place, seed=seed)
    return CensoredPerformance(
        rows=len(covered),
        labelled=len(used),
        min_age_hours=first,
        naive={name: interval.figure for name, interval in naive.items()},
        figures=figures_by_days(task, truth, scores, place, weights=weights, seed=seed),
    )


def arrived_by(delays: NDArray[np.int64], ages: NDArray[np.int64]) -> Floats:
    """(hours,) the share of outcomes that is in at each age from 0 to the oldest, of those that come until then.

    `delays` and `ages` (rows,) are whole hours of the outcomes that are in, each delay at most its age.
    """
    hours = int(ages.max()) + 1
    came = np.bincount(delays, minlength=hours)
    seen = np.cumsum(came) - np.cumsum(np.bincount(ages + 1, minlength=hours + 1)[:hours])
    with np.errstate(invalid="ignore", divide="ignore"):
        earlier = np.where(seen > 0, 1 - came / seen, 1.0)  # that an outcome in by this hour was in an hour before
    later = np.append(np.cumprod(earlier[::-1])[::-1][1:], 1.0)
    share: Floats = np.clip(later, 0.0, 1.0)
    return share


def _arrivals(labelled: pd.DataFrame, as_of: pd.Timestamp, task: Task) -> _Arrivals:
    delays = np.maximum(_hours(labelled["label_timestamp"] - labelled["event_timestamp"]), 0)
    ages = np.maximum(_hours(as_of - labelled["event_timestamp"]), delays)
    labels, scores = (labelled[name].to_numpy(dtype=np.float64) for name in ("label", "score"))
    kinds = _parts(labels, LABEL_PARTS) if task == "regression" else labels.astype(np.int64)
    strata = 1 + kinds * SCORE_PARTS + _parts(scores, SCORE_PARTS)
    for coarser in (-1 - kinds, np.zeros_like(kinds)):  # a small stratum joins its label's, then everything
        _, place, counts = np.unique(strata, return_inverse=True, return_counts=True)
        strata = np.where(counts[place] < MIN_ROWS, coarser, strata)
    curves = {}
    for name in np.unique(strata).tolist():
        pool = strata == name
        if pool.sum() < MIN_ROWS:  # what is left over and still too little
            pool = np.ones_like(pool)
        curves[name] = arrived_by(delays[pool], ages[pool])
    return _Arrivals(strata, curves)


def _weights(arrivals: _Arrivals, known: NDArray[np.bool_], ages: NDArray[np.int64]) -> Floats:
    """(used rows,) one over the chance of being in, by stratum and age."""
    weights = np.ones(len(ages))
    for name, curve in arrivals.curves.items():
        mine = arrivals.strata[known] == name
        weights[mine] = 1 / np.maximum(curve[np.minimum(ages[mine], len(curve) - 1)], MIN_ARRIVED)
    return weights


def _hours(spans: pd.Series) -> NDArray[np.int64]:
    """Whole hours, rounded up."""
    hours: NDArray[np.int64] = np.ceil(spans.to_numpy(dtype="timedelta64[us]").astype(np.int64) / 3.6e9).astype(
        np.int64
    )
    return hours


def _parts(values: Floats, parts: int) -> NDArray[np.int64]:
    """(rows,) the equal part each value lies in."""
    edges = np.unique(np.quantile(values, np.arange(1, parts) / parts))
    return np.searchsorted(edges, values, side="right").astype(np.int64)
