"""Two models on the same rows, paired by day: how far apart are they, and how sure is that?

Rows of one day rise and fall together, so the days are the sample and an interval over rows would be several times too
narrow. The mean difference is a ratio of day totals, since days differ in rows; its standard error is that of a ratio
estimator (Cochran 1977, "Sampling Techniques", chapter 6) and its bounds are Student's with days - 1 degrees of freedom
(Cameron & Miller 2015, "A Practitioner's Guide to Cluster-Robust Inference", section VI). On the 5 to 28 days a holdout
has these keep their level, where a percentile bootstrap of a week's days errs half as often again as it says
(`bench/gate.py`). No method sees a rare bad day that did not happen in the holdout.

Pure: no clock, no randomness. Called by `gate/` and `verdict/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from evergreen.errors import DataError
from evergreen.types import DayLoss, Scores


@dataclass(frozen=True)
class PairedDifference:
    """Candidate minus champion, in mean loss of a row (log loss or squared error) or in AUC."""

    mean: float
    error: float
    """Standard error of `mean` over days; infinite on one day, which says nothing of how days differ."""
    days: int

    def upper(self, confidence: float) -> float:
        """The true difference is below this with one-sided `confidence`."""
        if self.error == 0.0 or self.days < 2:
            return self.mean + self.error
        return self.mean + float(stdtrit(self.days - 1, confidence)) * self.error

    def lower(self, confidence: float) -> float:
        """The true difference is above this with one-sided `confidence`."""
        return 2 * self.mean - self.upper(confidence)

    def p_not_worse(self) -> float:
        """Of losses: chance of a rise at least this clear if the candidate were truly not worse (one-sided t test)."""
        if self.days < 2:
            return 1.0
        if self.error == 0.0:
            return 0.0 if self.mean > 0.0 else 1.0
        return float(stdtr(self.days - 1, -self.mean / self.error))


def paired_difference(candidate: Scores, champion: Scores) -> PairedDifference:
    """How the candidate's loss differs from the champion's on the same days.

    Raises `DataError` when either has no figures by day, or days or rows of a day differ: those are other rows.
    """
    totals = np.array([(one.loss_sum - other.loss_sum, one.rows) for one, other in _pairs(candidate, champion)])
    return ratio_of_totals(totals[:, 0], totals[:, 1])


def paired_auc(candidate: Scores, champion: Scores) -> PairedDifference | None:
    """How the candidate's AUC differs from the champion's on the same days; None where either has no AUC by day.

    Its error is DeLong's for two AUCs of the same rows, with days for clusters (Obuchowski 1997, "Nonparametric Analysis of
    Clustered ROC Curve Data"). Raises `DataError` as `paired_difference` does.
    """
    pulls = [(one.auc_pull, other.auc_pull) for one, other in _pairs(candidate, champion)]
    moved = np.array([mine - theirs for mine, theirs in pulls if mine is not None and theirs is not None])
    if len(moved) < len(pulls):
        return None
    days = len(moved)
    error = float(np.sqrt(days / (days - 1) * np.square(moved).sum())) if days > 1 else float("inf")
    return PairedDifference(mean=candidate["auc"] - champion["auc"], error=error, days=days)


def _pairs(candidate: Scores, champion: Scores) -> list[tuple[DayLoss, DayLoss]]:
    """Each day of both, in order."""
    mine, theirs = ([(day.day, day.rows) for day in scores.by_day] for scores in (candidate, champion))
    if not mine or sorted(mine) != sorted(theirs):
        raise DataError(
            f"the candidate has {sum(rows for _, rows in mine):,} rows on {len(mine)} days, the champion "
            f"{sum(rows for _, rows in theirs):,} on {len(theirs)}, or other rows on some day: pairing by day compares "
            "two models on the same rows. Score both on one holdout."
        )
    in_order = (sorted(scores.by_day, key=lambda day: day.day) for scores in (candidate, champion))
    return list(zip(*in_order, strict=True))


def ratio_of_totals(differences: NDArray[np.float64], rows: NDArray[np.float64]) -> PairedDifference:
    """Mean difference a row and its error, from each day's summed `differences` (days,) and `rows` (days,)."""
    days = len(rows)
    mean = differences.sum() / rows.sum()
    if days < 2:
        return PairedDifference(mean=float(mean), error=float("inf"), days=days)
    scatter = np.square(differences - mean * rows).sum()
    return PairedDifference(mean=float(mean), error=float(np.sqrt(days / (days - 1) * scatter) / rows.sum()), days=days)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P values corrected for being looked at together (Holm 1979): each may be held against the level by itself."""
    found = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(found, kind="stable")
    stepped = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    corrected = np.empty_like(found)
    corrected[order] = np.minimum(stepped, 1.0)
    return tuple(corrected.tolist())
