"""How well does a window's version do, while no outcome says so? Confidence-based performance estimation (CBPE).

A calibrated score is the chance of its class, so the figures that outcomes would give can be expected without them:
each row counts as either class by its chance (NannyML's documentation, "How it works: Performance Estimation",
"Confidence-based Performance Estimation"; multiclass scores are calibrated one class against the others and made to sum
to 1, as there). Scores are calibrated by isotonic regression (Zadrozny & Elkan 2002) on earlier outcomes of the same
version. It sees what a change of inputs does to the figures; it cannot see that the meaning of a score changed in the
window itself, which is why every estimate is later held beside what came true.

NannyML itself (0.13) wants an older LightGBM than the one pinned here. Pure; called by the watch's tasks.
A number predicted has no confidence, so of a regression there is no estimate.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from evergreen.figures import Floats
from evergreen.monitoring.intervals import blocks, figures_by_days
from evergreen.spec import MonitorConfig
from evergreen.types import PerformanceEstimate, Task

METHOD = "CBPE"
UNAVAILABLE = "a number that is predicted carries no confidence: CBPE estimates classifications only"


def estimate_performance(
    earlier: pd.DataFrame, answers: pd.DataFrame, *, task: Task, config: MonitorConfig, seed: int
) -> PerformanceEstimate | None:
    """Estimate the figures of `answers` without their outcomes; None of a regression, and of no rows.

    Both have `event_timestamp`, `score`, of a multiclass model `probabilities`, and are of one version; `earlier` has
    `label`, NaN where it was not known when the window starts. With fewer than `min_labels` of them, or of one class
    only, scores stand as they are.
    """
    if task == "regression" or answers.empty:
        return None
    known = earlier[earlier["label"].notna()]
    scores = scores_of(answers, task)
    usable = len(known) >= config.min_labels and known["label"].nunique() > 1
    chances = scores
    if usable:
        truth, said = truth_and_scores(known, task)
        usable = said.shape[1:] == scores.shape[1:]  # else a class came true that the model does not know
        chances = calibrated(truth, said, scores) if usable else scores
    place = blocks(answers["event_timestamp"], config.block_days)
    return PerformanceEstimate(
        method=METHOD,
        rows=len(answers),
        calibration_rows=len(known) if usable else 0,
        figures=figures_by_days(task, chances, scores, place, seed=seed),
    )


def calibrated(truth: Floats, said: Floats, scores: Floats) -> Floats:
    """`scores`, (rows,) or (rows, classes), as `said` turned out to mean: `truth` is 0 or 1, shaped like `said`."""
    if scores.ndim == 1:
        return _isotonic(truth, said, scores)
    by_class = [_isotonic(truth[:, k], said[:, k], scores[:, k]) for k in range(scores.shape[1])]
    chances = np.stack(by_class, axis=1)
    total = chances.sum(axis=1, keepdims=True)
    return np.where(total > 0, chances / np.where(total > 0, total, 1), scores)


def scores_of(rows: pd.DataFrame, task: Task) -> Floats:
    """(rows,) scores; of a multiclass model (rows, classes), which all rows must have alike."""
    if task == "multiclass":
        return np.array([list(by_class.values()) for by_class in rows["probabilities"]], dtype=np.float64)
    return rows["score"].to_numpy(dtype=np.float64)


def truth_and_scores(rows: pd.DataFrame, task: Task) -> tuple[Floats, Floats]:
    """What came true of labelled rows, and what was said, of one shape: labels and scores.

    Of a multiclass model both are (rows, classes), the truth 1 at the class that came true; a class the model does not
    know has been given no chance.
    """
    labels, scores = rows["label"].to_numpy(dtype=np.float64), scores_of(rows, task)
    if task != "multiclass":
        return labels, scores
    classes = max(scores.shape[1], int(labels.max()) + 1)
    truth = np.asarray(labels[:, None] == np.arange(classes), dtype=np.float64)
    return truth, np.pad(scores, ((0, 0), (0, classes - scores.shape[1])))


def _isotonic(truth: Floats, said: Floats, scores: NDArray[np.float64]) -> Floats:
    points, place, rows = np.unique(said, return_inverse=True, return_counts=True)
    shares = np.bincount(place, weights=truth) / rows
    fitted = isotonic_regression(shares, weights=rows).x
    chances: Floats = np.clip(np.interp(scores, points, fitted), 0.0, 1.0)
    return chances
