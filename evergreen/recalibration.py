"""A model's scores, moved to where outcomes have been lately: a slope and an intercept on the log odds.

What rots first is calibration, and this cures it without a feature, a gradient or a training engine (Platt 1999,
"Probabilistic outputs for support vector machines"; a slope alone is temperature scaling, Guo et al. 2017,
arXiv:1706.04599). Pure numpy, two classes. Called by `training/predictor.py`, which serves it, by monitoring, which asks
what it would gain, and by the backtest.
"""

import numpy as np
from numpy.typing import NDArray

from evergreen.types import Recalibration

RIDGE_ROWS = 50.0
"""Weight, in rows, of the belief that the scores are right already: a few outcomes move them little."""
_STEPS = 25
_FAR = 1e-6
"""Scores are kept this far from 0 and 1, where log odds have no end."""


def recalibrated(scores: NDArray[np.float64], by: Recalibration) -> NDArray[np.float64]:
    """(rows,) probabilities of `scores` (rows,), moved."""
    moved: NDArray[np.float64] = 1 / (1 + np.exp(-(by.intercept + by.slope * log_odds(scores))))
    return moved


def fit_recalibration(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> Recalibration:
    """Maximum likelihood with a ridge towards no change, by Newton's method; the identity where there are no rows."""
    x = np.stack([np.ones(len(scores)), log_odds(scores)], axis=1)
    start = np.array([0.0, 1.0])
    weights = start.copy()
    ridge = RIDGE_ROWS / 4 * np.eye(2)  # a quarter is the most a row's curvature can be
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-(x @ weights)))
        gradient = x.T @ (chances - labels) + ridge @ (weights - start)
        curvature = (x * (chances * (1 - chances))[:, None]).T @ x + ridge
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return Recalibration(slope=float(weights[1]), intercept=float(weights[0]))


def log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows,) of probabilities."""
    kept = np.clip(scores, _FAR, 1 - _FAR)
    odds: NDArray[np.float64] = np.log(kept) - np.log1p(-kept)
    return odds
