"""The cheapest challenger: the champion itself, its scores moved to where outcomes have been lately.

What rots first is calibration. A slope and an intercept on the log odds (Platt 1999, "Probabilistic outputs for support
vector machines") cost nothing to fit, need no features and no training engine, and say what a fresh model would gain at
least: fitted on outcomes known before a window, compared with the champion's own scores in the window, which neither
has seen, paired by day. Pure numpy. Called by `performance.py` and by the backtest.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.figures import row_losses
from evergreen.paired import PairedDifference, ratio_of_totals
from evergreen.spec import MonitorConfig
from evergreen.types import ProbeReport

RIDGE_ROWS = 50.0
"""Weight, in rows, of the belief that the scores are right already: a few outcomes move them little."""
_STEPS = 25
_FAR = 1e-6
"""Scores are kept this far from 0 and 1, where log odds have no end."""


@dataclass(frozen=True)
class Recalibration:
    """New log odds are `intercept + slope * old`."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(rows,) recalibrated probabilities."""
        moved: NDArray[np.float64] = 1 / (1 + np.exp(-(self.intercept + self.slope * log_odds(scores))))
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


def probe(earlier: pd.DataFrame, window: pd.DataFrame, config: MonitorConfig) -> ProbeReport | None:
    """Fit on the labelled rows of `earlier`, compare on the labelled rows of `window`; None below `min_labels` in either.

    Both have `event_timestamp`, `score` and `label` (NaN while unknown), of one version, and share no row.
    """
    before, now = earlier[earlier["label"].notna()], window[window["label"].notna()]
    if min(len(before), len(now)) < config.min_labels:
        return None
    fitted = fit_recalibration(before["label"].to_numpy(dtype=float), before["score"].to_numpy(dtype=float))
    found = paired_gain(now, fitted)
    if found.days < 2:
        return None
    return ProbeReport(
        slope=fitted.slope,
        intercept=fitted.intercept,
        fitted_rows=len(before),
        gain=-found.mean,
        gain_low=-found.upper(config.probe_confidence),
        days=found.days,
    )


def paired_gain(rows: pd.DataFrame, fitted: Recalibration) -> PairedDifference:
    """How the log loss of `fitted`'s scores differs from that of the rows' own, by UTC day."""
    labels, scores = rows["label"].to_numpy(dtype=float), rows["score"].to_numpy(dtype=float)
    difference = row_losses("binary", labels, fitted(scores)) - row_losses("binary", labels, scores)
    _, day = np.unique(rows["event_timestamp"].to_numpy(dtype="datetime64[D]"), return_inverse=True)
    answers: NDArray[np.float64] = np.bincount(day).astype(np.float64)
    return ratio_of_totals(np.bincount(day, weights=difference).astype(np.float64), answers)


def log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows,) of probabilities."""
    kept = np.clip(scores, _FAR, 1 - _FAR)
    odds: NDArray[np.float64] = np.log(kept) - np.log1p(-kept)
    return odds
