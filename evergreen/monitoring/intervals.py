"""Figures of a window with intervals by days, from outcomes that are certain, likely or weighted.

Days (or blocks of them) are drawn with replacement (block bootstrap; Davison & Hinkley 1997, "Bootstrap Methods and
their Application", sections 3.8 and 8.2.3): rows of one day rise and fall together. A percentile interval of a week's
days is too narrow, so its percentiles are moved out to where Student's quantile and the factor d/(d - 1) put them (the
expanded percentile interval of Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 4.6). Means are
ratios of the drawn days' totals, as in `evergreen/paired.py`; an AUC moves by its days' pulls, to first order, as there.

The truth of a row may be a label, a chance for each class (an estimate without outcomes, `estimate.py`), and a row may
stand for several (`censoring.py`): all are figured here by the same code, so they can be held beside each other.
Pure numpy: the seed is the caller's. To report another figure, yield it in `_means`.
"""

from collections.abc import Iterator
from math import sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from evergreen.figures import Floats, row_losses
from evergreen.types import LOSS_NAMES, Interval, Task

CONFIDENCE = 0.95
"""Of every interval, two-sided."""
RESAMPLES = 4_000
MIN_BLOCKS = 3
"""Fewer say next to nothing of how days differ."""


def blocks(moments: pd.Series, block_days: int) -> NDArray[np.int64]:
    """(rows,) the block of each row, numbered from 0; blocks of whole UTC days are laid from the newest day back."""
    day = moments.to_numpy(dtype="datetime64[us]").astype("datetime64[D]").astype(np.int64)
    if not len(day):
        return day
    number: NDArray[np.int64] = np.unique((day.max() - day) // block_days, return_inverse=True)[1]
    return number


def figures_by_days(
    task: Task, truth: Floats, scores: Floats, place: NDArray[np.int64], *, weights: Floats | None = None, seed: int = 0
) -> dict[str, Interval]:
    """The loss, `calibration_gap`, and of classes `accuracy` and (where two classes are there) `auc`.

    `truth` is (rows,) labels or, of a binary task, chances that the label is 1; of a multiclass task (rows, classes),
    `scores` alike; `place` (rows,) is `blocks`', `weights` (rows,) what each row stands for. The gap is that of
    `evaluation.calibration_gap`; accuracy is that of the likeliest class. There must be a row of some weight.
    """
    rows = np.ones(len(place)) if weights is None else weights
    count = int(place.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    bottoms = np.bincount(place, weights=rows, minlength=count)
    found = {}
    for name, values in _means(task, truth, scores, rows):
        tops = np.bincount(place, weights=values * rows, minlength=count)
        with np.errstate(invalid="ignore"):  # a draw of blocks without weight says nothing
            others = (drawn @ tops) / (drawn @ bottoms)
        found[name] = _interval(float(tops.sum() / bottoms.sum()), others[np.isfinite(others)], count)
    ranked = _ranked(task, truth, scores, rows)
    if ranked is not None:
        auc, pulls = ranked
        others = np.clip(auc + drawn @ np.bincount(place, weights=pulls, minlength=count), 0.0, 1.0)
        found["auc"] = _interval(auc, others, count)
    return found


def auc_of(ones: Floats, zeros: Floats, scores: Floats) -> tuple[float, Floats]:
    """The AUC of rows that are `ones` (rows,) times of class 1 and `zeros` (rows,) times of class 0, and each row's pull.

    With labels the pulls are those of `figures.auc_pulls`; they sum to 0. Both classes must have weight.
    """
    _, place = np.unique(scores, return_inverse=True)
    steps = int(place.max()) + 1
    up, down = (np.bincount(place, weights=side, minlength=steps) for side in (ones, zeros))
    below = ((np.cumsum(down) - down / 2) / down.sum())[place]
    above = ((up.sum() - np.cumsum(up) + up / 2) / up.sum())[place]
    auc = float(ones @ below / ones.sum())
    pulls: Floats = ones / ones.sum() * (below - auc) + zeros / zeros.sum() * (above - auc)
    return auc, pulls


def _means(task: Task, truth: Floats, scores: Floats, rows: Floats) -> Iterator[tuple[str, Floats]]:
    """Figures that are means over rows: name, and (rows,) values."""
    loss = LOSS_NAMES[task].figure
    if task == "regression":
        mean = np.average(truth, weights=rows)
        spread = sqrt(float(np.average(np.square(truth - mean), weights=rows))) or 1.0
        yield loss, row_losses(task, truth, scores)
        yield "calibration_gap", (scores - truth) / spread
    elif task == "multiclass":
        classes = range(scores.shape[1])
        yield loss, sum(truth[:, k] * row_losses(task, np.full(len(rows), k), scores) for k in classes)  # type: ignore[misc]
        yield "accuracy", truth[np.arange(len(rows)), scores.argmax(axis=1)]
        gaps = scores - truth
        yield "calibration_gap", gaps[:, int(np.abs(rows @ gaps).argmax())]
    else:
        either = (row_losses(task, np.full(len(rows), float(k)), scores) for k in (1, 0))
        yield loss, truth * next(either) + (1 - truth) * next(either)
        yield "accuracy", np.where(scores >= 0.5, truth, 1 - truth)
        yield "calibration_gap", scores - truth


def _ranked(task: Task, truth: Floats, scores: Floats, rows: Floats) -> tuple[float, Floats] | None:
    """The AUC and its pulls, of more than two classes the mean over those that are there and not all there is."""
    if task == "regression":
        return None
    sides = [(truth, scores)] if task == "binary" else [(truth[:, k], scores[:, k]) for k in range(scores.shape[1])]
    both = [(rows * ones, rows * (1 - ones), said) for ones, said in sides]
    found = [auc_of(ones, zeros, said) for ones, zeros, said in both if ones.sum() > 0 and zeros.sum() > 0]
    if not found:
        return None
    pulls: Floats = np.mean([pull for _, pull in found], axis=0)
    return float(np.mean([auc for auc, _ in found])), pulls


def _interval(figure: float, others: Floats, count: int) -> Interval:
    if count < MIN_BLOCKS or not len(others):
        return Interval(figure=figure)
    tail = float(ndtr(sqrt(count / (count - 1)) * stdtrit(count - 1, (1 - CONFIDENCE) / 2)))
    low, high = np.quantile(others, [tail, 1 - tail])
    return Interval(figure=figure, low=float(low), high=float(high))
