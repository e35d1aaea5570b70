"""Can this training still beat the champion? What both lose on days that neither has learnt from.

Pure. The champion is scored before the training starts (`tasks/rival.py`), the training tells its own losses at the end
of each epoch. Nothing here shapes the weights: it only ends a run.
"""

from datetime import UTC, date, datetime, time

from pydantic import PositiveFloat

from evergreen.types import DayLoss, Fact, Progress, TrainingSet


class Rival(Fact):
    """The champion, as a training has to beat it."""

    version: int
    margin: PositiveFloat
    by_day: tuple[DayLoss, ...]
    """Its losses on days it has not trained on."""

    def beats(self, progress: Progress) -> str | None:
        """Why the training should be given up, or None while it may go on.

        Asked at the end of an epoch, from half of the epochs on; the last epoch is the gate's to judge.
        """
        if not progress.epochs <= 2 * progress.epoch < 2 * progress.epochs:
            return None
        days = {day.day for day in self.by_day} & {day.day for day in progress.validation_by_day}
        if not days:
            return None
        mine, its = _loss(progress.validation_by_day, days), _loss(self.by_day, days)
        if mine <= its + self.margin:
            return None
        return (
            f"given up after epoch {progress.epoch} of {progress.epochs}: on {len(days)} validation days that champion "
            f"{self.version} has not trained on the loss is {mine:.4f}, the champion's {its:.4f}, and "
            f"[train].abandon_margin is {self.margin:g}"
        )


def has_not_seen(champion: TrainingSet, day: date) -> bool:
    """Whether all of a day, in UTC, comes after the champion's training rows."""
    return datetime.combine(day, time(), UTC) >= champion.holdout.start


def _loss(by_day: tuple[DayLoss, ...], days: set[date]) -> float:
    chosen = [day for day in by_day if day.day in days]
    return sum(day.loss_sum for day in chosen) / sum(day.rows for day in chosen)
