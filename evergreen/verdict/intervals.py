"""How sure each figure of a verdict is: intervals with days as the unit, as the gate has them.

Student's intervals of ratio estimators and of clustered AUCs, see `paired.py`. Two-sided at 2 × `confidence` - 1, so that each
end is a bound the gate could have held against its rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evergreen.paired import PairedDifference, paired_auc, paired_difference, ratio_of_totals
from evergreen.types import Evaluation, Scores


@dataclass(frozen=True)
class Interval:
    """A figure and where the true one is, with some confidence; `low` and `high` are None on one day."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: PairedDifference, confidence: float) -> "Interval":
        """Of a difference, or of a mean over days."""
        if found.days < 2:
            return cls(found.mean)
        return cls(found.mean, found.lower(confidence), found.upper(confidence))


@dataclass(frozen=True)
class Row:
    """One figure of a candidate beside its champion's."""

    name: str
    mine: Interval
    theirs: Interval | None = None
    change: Interval | None = None


def figure_rows(candidate: Evaluation, champion: Evaluation | None, confidence: float) -> Iterator[Row]:
    """The loss, the AUC where there is one, and the figures that have no interval."""
    mine, theirs = candidate.overall, champion.overall if champion else None
    yield Row(
        mine.loss_name,
        loss_interval(mine, confidence),
        loss_interval(theirs, confidence) if theirs is not None else None,
        Interval.of(paired_difference(mine, theirs), confidence) if theirs is not None else None,
    )
    if "auc" in mine.figures:
        both = theirs is not None and "auc" in theirs.figures
        change = paired_auc(mine, theirs) if theirs is not None and both else None
        yield Row(
            "AUC",
            auc_interval(mine, confidence),
            auc_interval(theirs, confidence) if theirs is not None and both else None,
            Interval.of(change, confidence) if change is not None else None,
        )
    yield Row(
        "calibration error",
        Interval(mine["calibration_error"], mine.figures.get("calibration_error_low")),
        None if theirs is None else Interval(theirs["calibration_error"], theirs.figures.get("calibration_error_low")),
    )
    for name in (
        "brier",
        "accuracy",
        "rmse",
        "mae",
        "r2",
        "bias",
        "base_rate",
        "mean_score",
        "mean_label",
        "score_std",
    ):
        if name in mine.figures:
            other = None if theirs is None or name not in theirs.figures else Interval(theirs[name])
            yield Row(name.replace("_", " "), Interval(mine[name]), other)


def loss_interval(scores: Scores, confidence: float) -> Interval:
    """Of the mean loss of a row."""
    if not scores.by_day:
        return Interval(scores.loss)
    totals = np.array([(day.loss_sum, day.rows) for day in scores.by_day], dtype=np.float64)
    return Interval.of(ratio_of_totals(totals[:, 0], totals[:, 1]), confidence)


def auc_interval(scores: Scores, confidence: float) -> Interval:
    """Of the AUC, by the days' pulls (Obuchowski 1997)."""
    pulls = [day.auc_pull for day in scores.by_day if day.auc_pull is not None]
    days = len(pulls)
    if days < 2 or days < len(scores.by_day):
        return Interval(scores["auc"])
    error = float(np.sqrt(days / (days - 1) * np.square(pulls).sum()))
    return Interval.of(PairedDifference(mean=scores["auc"], error=error, days=days), confidence)


def slice_changes(
    candidate: Evaluation, champion: Evaluation, confidence: float, min_rows: int = 1
) -> list[tuple[str, int, Interval]]:
    """Name, rows and change of loss of each slice both have, the worst change first."""
    changes = [
        (name, mine.rows, Interval.of(paired_difference(mine, champion.slices[name]), confidence))
        for name, mine in candidate.slices.items()
        if name in champion.slices and champion.slices[name].rows == mine.rows and mine.rows >= min_rows
    ]
    return sorted(changes, key=lambda change: -change[2].value)


def day_changes(candidate: Evaluation, champion: Evaluation) -> list[tuple[str, int, float]]:
    """Day, rows and mean change of loss a row, oldest first."""
    theirs = {day.day: day for day in champion.overall.by_day}
    return [
        (f"{day.day.day} {day.day:%b}", day.rows, (day.loss_sum - theirs[day.day].loss_sum) / day.rows)
        for day in sorted(candidate.overall.by_day, key=lambda day: day.day)
        if day.day in theirs
    ]
