"""What cures a model that has rotted, the cheapest first, and what the cheapest cure changes."""

from enum import StrEnum

from evergreen.types.fact import Fact


class Remedy(StrEnum):
    """A rung of the ladder. Each gives a version that passes the same gate and release."""

    RECALIBRATE = "recalibrate"
    """The champion's network, its scores moved to where outcomes have been lately."""
    FINE_TUNE = "fine_tune"
    """The champion's weights, trained a little further on recent rows."""
    RETRAIN = "retrain"
    """A new network, trained on everything known."""
    SEARCH = "search"
    """Better values for `[train]` are looked for first."""

    @property
    def trains_anew(self) -> bool:
        """Whether a new network comes of it: what cooldowns and retrain budgets count."""
        return self in (Remedy.RETRAIN, Remedy.SEARCH)


class Recalibration(Fact):
    """New log odds are `intercept + slope * old`; the identity changes nothing."""

    slope: float = 1.0
    intercept: float = 0.0
