"""The cheapest cure first: which remedy does an alarm ask for?

A model that has decayed may only need its scores moved, or a little of what is new; a retrain costs a hundred times as
much. So decay begins with the spec's first rung, and while it alarms soon after a rung, the next one is asked for. What
only new learning cures (age, moved inputs, much new data) asks for a retrain at once. Pure. Called by `policy.py`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from evergreen.spec import ModelSpec
from evergreen.types import Alarm, Cause, Remedy, WatchCheck

LADDER = tuple(Remedy)


def climbed(
    spec: ModelSpec, end: datetime, alarms: Sequence[Alarm], history: Sequence[WatchCheck]
) -> tuple[Remedy, str]:
    """The lowest rung that may be enough for a window that ends at `end`, and why that one; `history` holds past checks."""
    first, last = spec.remedy.first, spec.remedy.last
    if any(alarm.trigger != Cause.DECAY for alarm in alarms):
        remedy = max(first, Remedy.RETRAIN, key=LADDER.index)
        return remedy, f"{remedy}: what alarms is cured by new learning alone"
    tried = _tried(spec, end, history)
    if tried is None:
        return first, f"{first}: the rung that [remedy].first begins with"
    above = LADDER[min(LADDER.index(tried) + 1, LADDER.index(last))]
    remedy = max(first, above, key=LADDER.index)
    return remedy, f"{remedy}: {tried} was asked for within [remedy].climb_days ({spec.remedy.climb_days:g}), and still"


def _tried(spec: ModelSpec, end: datetime, history: Sequence[WatchCheck]) -> Remedy | None:
    """The highest rung that an alarm asked for lately, whatever became of it."""
    recently = timedelta(days=spec.remedy.climb_days)
    lately = [
        check
        for check in history
        if check.retrain and check.alarms and timedelta(0) < end - check.window.end <= recently
    ]
    return max((check.remedy for check in lately), key=LADDER.index, default=None)
