"""A retraining policy played over history: what would have served, how well, and for how many retrains?

At each slot a policy is asked, knowing what was known then: outcomes carry the moments they came in. The model that a
retrain at a slot would have made does not depend on who asked for it, so policies share models, and a policy costs a
look-up. The spec's own is `policy.decide`, on reports of the code that runs live. Simplified: a retrain serves from its
slot on (no canary), every candidate passes its gate, and a week's champion answers all rows.

What it comes to is counted in `backtest_figures.py`. Pure: models come in as scores. Called by `tasks/backtest.py`. To add
a policy, write a function from `Moment` to `Asked`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.evaluation import score_rows
from evergreen.figures import row_losses
from evergreen.monitoring.performance import performance
from evergreen.monitoring.policy import decide
from evergreen.monitoring.windows import newest_mature
from evergreen.spec import ModelSpec
from evergreen.types import Cause, Evaluation, WatchCheck, Window

NO_ARTIFACT = "sha256:" + "0" * 64


@dataclass(frozen=True)
class History:
    """Rows, when their outcomes came in, and what the model of each slot says of them."""

    moments: NDArray[np.datetime64]
    """(rows,) when each was asked about."""
    known: NDArray[np.datetime64]
    """(rows,) when its outcome was known."""
    labels: NDArray[np.float64]
    slots: tuple[datetime, ...]
    """Moments a model can be made at; the first one's serves first. The last ends the play."""
    cuts: tuple[datetime, ...]
    """(slots - 1,) each slot's model was trained on rows before this: all of them had outcomes then."""
    scores: Callable[[int], NDArray[np.float64]]
    """(rows,) of the model that a slot's retrain makes."""

    @property
    def weeks(self) -> int:
        """Slots that are served."""
        return len(self.slots) - 1

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """(rows,) week each row is served in; -1 or `weeks` outside."""
        return np.searchsorted(np.array([naive(s) for s in self.slots]), self.moments, side="right") - 1

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """(weeks,) rows of each."""
        inside = (self.place >= 0) & (self.place < self.weeks)
        return np.bincount(self.place[inside], minlength=self.weeks)

    def losses(self, slot: int) -> NDArray[np.float64]:
        """(weeks,) summed log loss of a slot's model on each week."""
        inside = (self.place >= 0) & (self.place < self.weeks)
        lost = row_losses("binary", self.labels[inside], self.scores(slot)[inside])
        return np.asarray(np.bincount(self.place[inside], weights=lost, minlength=self.weeks), dtype=np.float64)


@dataclass(frozen=True)
class Moment:
    """What a policy knows when it is asked: the slot, who serves, and what it said itself before."""

    history: History
    slot: int
    champion: int
    retrains: tuple[int, ...]
    checks: tuple[WatchCheck, ...] = ()
    """Newest first."""


@dataclass(frozen=True)
class Asked:
    """A policy's answer."""

    retrain: bool
    alarm: bool = False
    """Because something was seen, not because time had come."""
    check: WatchCheck | None = None


@dataclass(frozen=True)
class Played:
    """One policy's year."""

    champions: tuple[int, ...]
    """(weeks,) slot whose model served each week."""
    retrains: tuple[int, ...]
    alarms: tuple[int, ...]
    """Slots at which it alarmed, whether or not that led to a retrain."""


Policy = Callable[[Moment], Asked]


def play(history: History, policy: Policy) -> Played:
    """Ask `policy` at every slot but the first."""
    champions: list[int] = [0]
    retrains: list[int] = []
    alarms: list[int] = []
    checks: tuple[WatchCheck, ...] = ()
    for slot in range(1, history.weeks):
        answer = policy(Moment(history, slot, champions[-1], tuple(retrains), checks))
        if answer.check is not None:
            checks = (answer.check, *checks)
        if answer.alarm:
            alarms.append(slot)
        if answer.retrain:
            retrains.append(slot)
        champions.append(slot if answer.retrain else champions[-1])
    return Played(tuple(champions), tuple(retrains), tuple(alarms))


def never(_: Moment) -> Asked:
    """The first model for ever."""
    return Asked(retrain=False)


def every(weeks: int) -> Policy:
    """By the calendar alone."""
    return lambda moment: Asked(retrain=moment.slot % weeks == 0)


def at(slots: Sequence[int]) -> Policy:
    """At these slots, whatever happens."""
    return lambda moment: Asked(retrain=moment.slot in slots)


def by_spec(spec: ModelSpec) -> Policy:
    """The rules of `[monitor]` and `[retrain].cooldown_days`, through the code that runs live."""

    def ask(moment: Moment) -> Asked:
        history, as_of = moment.history, moment.history.slots[moment.slot]
        frame = answers(moment, spec)
        window = newest_mature(frame, as_of=as_of, config=spec.monitor)
        if window is None:
            return Asked(retrain=False)
        inside = (frame["event_timestamp"] >= window.start) & (frame["event_timestamp"] < window.end)
        earlier = frame[frame["event_timestamp"] < window.start]
        earlier = earlier.assign(label=earlier["label"].where(earlier["label_timestamp"] < window.start))
        measured = performance(
            frame[inside],
            model=spec.name,
            version=moment.champion + 1,
            window=window,
            config=spec.monitor,
            earlier=earlier,
        )
        decision = decide(
            spec=spec,
            as_of=as_of,
            performance=measured,
            drift=None,
            champion_evaluation=_evaluation(moment, spec),
            trained_until=history.cuts[moment.champion],
            history=moment.checks,
        )
        check = WatchCheck(
            model=spec.name,
            version=moment.champion + 1,
            window=window,
            alarms=decision.alarms,
            retrain=decision.retrain,
            episode=decision.episode,
        )
        saw = any(alarm.trigger != Cause.AGE for alarm in decision.alarms)
        return Asked(decision.retrain and not _cooling(moment, spec), decision.retrain and saw, check)

    return ask


def answers(moment: Moment, spec: ModelSpec) -> pd.DataFrame:
    """What the champion had answered lately, with the outcomes known at the slot: a frame of the prediction log."""
    history, as_of = moment.history, naive(moment.history.slots[moment.slot])
    since = max(as_of - np.timedelta64(4 * spec.monitor.window_days, "D"), naive(history.slots[moment.champion]))
    rows = np.flatnonzero((history.moments >= since) & (history.moments < as_of))
    known = history.known[rows] <= as_of
    return pd.DataFrame(
        {
            "event_timestamp": pd.to_datetime(history.moments[rows], utc=True),
            "version": moment.champion + 1,
            "score": history.scores(moment.champion)[rows],
            "label": np.where(known, history.labels[rows], np.nan),
            "label_timestamp": pd.to_datetime(np.where(known, history.known[rows], np.datetime64("NaT")), utc=True),
        }
    )


def _cooling(moment: Moment, spec: ModelSpec) -> bool:
    if not moment.retrains:
        return False
    since = moment.history.slots[moment.slot] - moment.history.slots[moment.retrains[-1]]
    return since < timedelta(days=spec.retrain.cooldown_days)


def _evaluation(moment: Moment, spec: ModelSpec) -> Evaluation:
    """The champion's figures on the last week it was trained before: what stands in for its gate."""
    history = moment.history
    end = history.slots[moment.champion]
    window = Window(start=end - timedelta(days=spec.train.holdout_days), end=end)
    rows = (history.moments >= naive(window.start)) & (history.moments < naive(window.end))
    overall = score_rows(history.labels[rows], history.scores(moment.champion)[rows])
    return Evaluation(
        model=spec.name, artifact=NO_ARTIFACT, holdout=window, holdout_digest=NO_ARTIFACT, days=7, overall=overall
    )


def naive(moment: datetime) -> np.datetime64:
    """In UTC, as numpy has it."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
