"""`[remedy]`: which cures are cheaper than a retrain, and when they are tried."""

from pydantic import PositiveFloat, PositiveInt

from evergreen.spec.table import Table
from evergreen.types import Remedy


class RemedyConfig(Table):
    """What cures it, the cheapest first? The `[remedy]` table."""

    first: Remedy = Remedy.RETRAIN
    """The rung an alarm of decay begins with: `recalibrate`, `fine_tune`, `retrain` or `search`. While it alarms within
    `climb_days` after a rung, the next one up is asked for. Age, drift and volume ask for new learning, so for a retrain."""
    last: Remedy = Remedy.RETRAIN
    """The highest rung that alarms may reach."""
    climb_days: PositiveFloat = 28
    """How long a rung that was tried is remembered."""
    routine: Remedy | None = None
    """Done at every check that asks for nothing dearer, alarm or not: `recalibrate` or `fine_tune`."""
    calibration_days: PositiveInt = 28
    """A recalibration is fitted on at most so many of the newest days with outcomes, none of which the champion learnt from."""
    tune_days: PositiveInt = 28
    """A fine-tune learns from so many of the newest days,"""
    tune_epochs: PositiveInt = 1
    """so often,"""
    tune_rate_share: PositiveFloat = 0.1
    """at this share of `[train].learning_rate`."""
