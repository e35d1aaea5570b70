"""The cheapest challenger: the champion itself, recalibrated on outcomes known before a window.

It says what a fresh model would gain at least: compared with the champion's own scores in the window, which neither has
seen, paired by day. Pure numpy. Called by `performance.py` and by the backtest.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.figures import row_losses
from evergreen.paired import PairedDifference, ratio_of_totals
from evergreen.recalibration import fit_recalibration, recalibrated
from evergreen.spec import MonitorConfig
from evergreen.types import ProbeReport, Recalibration


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
    difference = row_losses("binary", labels, recalibrated(scores, fitted)) - row_losses("binary", labels, scores)
    _, day = np.unique(rows["event_timestamp"].to_numpy(dtype="datetime64[D]"), return_inverse=True)
    answers: NDArray[np.float64] = np.bincount(day).astype(np.float64)
    return ratio_of_totals(np.bincount(day, weights=difference).astype(np.float64), answers)
