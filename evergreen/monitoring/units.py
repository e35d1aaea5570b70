"""Did a column change its unit? Steps between hours, days and weeks that the world does not make.

Pure over rows by the hour (`hours.py`). Called by `faults.py`. To know another conversion, add it to `CONVERSIONS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.monitoring.hours import DAY_HOURS, Hours, Steps, moment_of, steps_of

CONVERSIONS: Mapping[str, tuple[float, float]] = {
    "Fahrenheit became Celsius": (5 / 9, -160 / 9),
    "Celsius became Fahrenheit": (9 / 5, 32.0),
    "miles became kilometres": (1.609344, 0.0),
    "kilometres became miles": (1 / 1.609344, 0.0),
    "miles an hour became metres a second": (0.44704, 0.0),
    "metres a second became miles an hour": (1 / 0.44704, 0.0),
    "inches became millimetres": (25.4, 0.0),
    "minutes became hours": (1 / 60, 0.0),
    "minutes became seconds": (60.0, 0.0),
    "shares became percentages": (100.0, 0.0),
    "percentages became shares": (0.01, 0.0),
    "units became thousands": (0.001, 0.0),
}
"""Slope and shift: what a jump may look like."""
SHORT = 2
"""Hours on either side of a step that no weather makes."""
WEEK_HOURS = 7 * DAY_HOURS
JUMPS = (1.2, 3.0, 3.0, 1.5)
"""How many times the reference's largest step one must be: between hours, between days, where no conversion fits, and between
weeks."""
LEAST_VALUES = 8
"""On either side of a step: a few values lie apart by chance."""
MEAN_TOLERANCE = 0.25
"""Of a converted mean, in deviations."""
DEVIATION_TOLERANCE, WEEK_DEVIATION_TOLERANCE = 0.2, 0.5
"""Of a converted deviation, as a logarithm: of a day's values, and of a week's."""


@dataclass(frozen=True)
class Jump:
    """A step that a change of units makes."""

    since: datetime
    size: float
    largest: float
    """Of the reference's own steps over as many hours."""
    words: str


def unit_jump(
    before: Hours,
    after: Hours,
    usual: NDArray[np.float64],
    now: NDArray[np.float64],
    start: pd.Timestamp,
) -> Jump | None:
    """A step that a change of units makes and the world does not; the first one, if there are several.

    Weather and traffic cross any range in a day but seldom in an hour, and then not to where a conversion would put them.
    A column that is noisy by the hour shows a conversion in the mean and the deviation of whole days, and one whose days
    once jumped as far shows it between weeks.
    """
    for span, judge in ((SHORT, _hour_step), (DAY_HOURS, _day_step), (WEEK_HOURS, _week_step)):
        natural = steps_of(before, usual, span).sizes
        largest = float(natural.max(initial=0.0))
        if largest == 0.0:
            continue
        steps = steps_of(after, now, span)
        for at in np.flatnonzero((steps.hours >= start.to_datetime64()) & (steps.sizes > min(JUMPS) * largest)):
            why = judge(steps, int(at), after, now, natural)
            if why is None:
                continue
            words = (
                f"its mean over {span} hours jumps from {steps.left[at]:.3g} to {steps.right[at]:.3g}, "
                f"in the reference by {largest:.3g} at most; {why}"
            )
            return Jump(moment_of(steps.hours[at]), float(steps.sizes[at]), largest, words)
    return None


def _hour_step(
    steps: Steps, at: int, after: Hours, now: NDArray[np.float64], natural: NDArray[np.float64]
) -> str | None:
    """Why a step between hours is one of units: it stays, no value is among those before, and it fits or is enormous."""
    if not steps.kept(at) or not _apart(steps, at, after, now):
        return None
    common = float(np.quantile(natural, 0.99))
    for words, (slope, shift) in CONVERSIONS.items():
        if abs(steps.right[at] - (slope * steps.left[at] + shift)) <= slope * common:
            return f"as if {words}"
    return "no known conversion" if steps.sizes[at] > JUMPS[2] * natural.max() else None


def _day_step(
    steps: Steps, at: int, after: Hours, now: NDArray[np.float64], natural: NDArray[np.float64]
) -> str | None:
    """The same between days, where mean and deviation must fit: days jump at holidays too."""
    named = _conversion(steps, at, after, now) if steps.sizes[at] > JUMPS[1] * natural.max() else None
    return None if named is None else f"as if {named}"


def _week_step(
    steps: Steps, at: int, after: Hours, now: NDArray[np.float64], natural: NDArray[np.float64]
) -> str | None:
    """The same between weeks, whose means wander with the season, so the converted one may miss by a common step.

    Only of conversions that move zero: seasons double a rate and halve a rainfall, as a change of units might. And only where
    the mean moves by more than the values of a week deviate: a calm week after a stormy one is delayed less, and less variably.
    """
    if steps.sizes[at] <= JUMPS[3] * natural.max():
        return None
    left, right = _around(steps, at, after, now, WEEK_HOURS)
    if steps.sizes[at] <= left.std():
        return None
    common = float(np.quantile(natural, 0.99))
    for words, (slope, shift) in ((words, way) for words, way in CONVERSIONS.items() if way[1] != 0.0):
        near = abs(steps.right[at] - (slope * steps.left[at] + shift)) <= slope * common
        if near and abs(np.log(max(right.std(), 1e-12) / max(slope * left.std(), 1e-12))) <= WEEK_DEVIATION_TOLERANCE:
            return f"as if {words}"
    return None


def _apart(steps: Steps, at: int, after: Hours, now: NDArray[np.float64]) -> bool:
    """No value of the hours after a step lies among those of the hours before."""
    left, right = _around(steps, at, after, now, SHORT)
    return min(len(left), len(right)) >= LEAST_VALUES and bool(left.max() < right.min() or right.max() < left.min())


def _around(
    steps: Steps, at: int, after: Hours, now: NDArray[np.float64], span: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Known values of so many hours before a step, and from it on."""
    hour = int((steps.hours[at] - after.first).astype(np.int64))
    cuts = np.searchsorted(after.place, [hour - span, hour, hour + span])
    left, right = now[cuts[0] : cuts[1]], now[cuts[1] : cuts[2]]
    return left[~np.isnan(left)], right[~np.isnan(right)]


def _conversion(steps: Steps, at: int, after: Hours, now: NDArray[np.float64]) -> str | None:
    """The known conversion that maps the day before a step to the day after it, in mean and in deviation."""
    left, right = _around(steps, at, after, now, DAY_HOURS)
    if min(len(left), len(right)) < 2 or left.std() == 0.0:
        return None
    for words, (slope, shift) in CONVERSIONS.items():
        scale = slope * left.std()
        near = abs(right.mean() - (slope * left.mean() + shift)) <= MEAN_TOLERANCE * scale
        if near and abs(np.log(max(right.std(), 1e-12) / scale)) <= DEVIATION_TOLERANCE:
            return words
    return None
