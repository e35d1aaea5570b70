"""Figures of a window with what they are worth: intervals, slices, days, and what is said before its outcomes are in."""

from datetime import date

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from evergreen.types.fact import Fact, Utc, Window


class Interval(Fact):
    """A figure, and between what bounds it would lie had other days like these come."""

    figure: float
    low: float | None = None
    """None where the days are too few to tell."""
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.figure:.4f}"
        return f"{self.figure:.4f} ({self.low:.4f} to {self.high:.4f})"


class DayPerformance(Fact):
    """One UTC day of a window."""

    day: date
    rows: PositiveInt
    """With an outcome."""
    loss: NonNegativeFloat
    calibration_gap: float


class SlicePerformance(Fact):
    """The rows of a window with one value in one column."""

    name: str
    """`column=value`."""
    rows: PositiveInt
    """With an outcome."""
    figures: dict[str, Interval]
    """Named as those of the whole window."""


class PerformanceEstimate(Fact):
    """What a window's figures are if scores mean what they meant before it, found without its outcomes."""

    method: str
    rows: PositiveInt
    calibration_rows: NonNegativeInt
    """Earlier outcomes the scores were calibrated on; 0 where those are few and the scores stand as they are."""
    figures: dict[str, Interval]


class CensoredPerformance(Fact):
    """Figures of a window part of whose outcomes are out, corrected for the early ones being no fair sample."""

    rows: PositiveInt
    """Answers old enough to be spoken of."""
    labelled: PositiveInt
    """Of them, with an outcome."""
    min_age_hours: NonNegativeInt
    """Younger answers are left out: of some kind of them next to no outcome can be in."""
    naive: dict[str, float]
    """The same figures over the outcomes that are in, uncorrected."""
    figures: dict[str, Interval]


class WindowEstimate(Fact):
    """What was said of a window before its outcomes were in, and later what came true."""

    model: str
    version: int
    window: Window
    as_of: Utc
    served: NonNegativeInt
    labelled: NonNegativeInt
    """Outcomes that were in at `as_of`."""
    estimate: PerformanceEstimate | None
    unavailable: str | None = None
    """Why there is no estimate."""
    censored: CensoredPerformance | None = None
    """None where every outcome was in, or too few were."""
    realised: dict[str, float] | None = None
    """The same figures once enough outcomes were in; None until then."""
    realised_as_of: Utc | None = None

    @property
    def errors(self) -> dict[str, float]:
        """Estimated less realised, by figure; empty until both are there."""
        if self.estimate is None or self.realised is None:
            return {}
        said = self.estimate.figures
        return {name: said[name].figure - came for name, came in self.realised.items() if name in said}

    @property
    def label_share(self) -> float:
        """Share of what was served that had its outcome at `as_of`."""
        return self.labelled / self.served if self.served else 0.0
