"""A retraining policy played over history: what would have served, how well, and for how many retrains?

At each slot a policy is asked, knowing what was known then: outcomes carry the moments they came in. The model that a
retrain at a slot would have made does not depend on who asked for it, so policies share models, and a policy costs a
look-up; so it is with what fine-tuning makes of one. Simplified: a remedy serves from its slot on (no canary), every
candidate passes its gate, nothing is held out for it, and a week's champion answers all rows.

The policies are in `policies.py`; what they come to is counted in `figures.py`. Pure: models come in as
scores. Called by `tasks/backtest.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evergreen.figures import row_losses
from evergreen.recalibration import fit_recalibration, recalibrated
from evergreen.types import Recalibration, Remedy, WatchCheck

AS_IT_IS = Recalibration()


Weights = Callable[[int, tuple[int, ...], int], NDArray[np.float64]]
"""(rows,) scores of the model of a slot's retrain after fine-tuning at some later slots, one after the other. The last number
is the slot up to which they are asked for: of later rows they may be NaN."""


@dataclass(frozen=True)
class Version:
    """What serves: the model of a slot's retrain, and what was done to it since."""

    slot: int
    tuned: tuple[int, ...] = ()
    """Slots at which it was fine-tuned, oldest first, each time from what it was before."""
    moved: Recalibration = AS_IT_IS

    @property
    def learnt(self) -> int:
        """The slot up to which its weights know history."""
        return self.tuned[-1] if self.tuned else self.slot


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
    weights: Weights

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

    def scores(self, version: Version, end: int) -> NDArray[np.float64]:
        """(rows,) what a version says of rows before a slot."""
        said = self.weights(version.slot, version.tuned, end)
        return said if version.moved == AS_IT_IS else recalibrated(said, version.moved)

    def losses(self, slot: int) -> NDArray[np.float64]:
        """(weeks,) summed log loss of a slot's model, untouched, on each week from its own on; NaN before."""
        inside = (self.place >= slot) & (self.place < self.weeks)
        lost = row_losses("binary", self.labels[inside], self.weights(slot, (), self.weeks)[inside])
        summed = np.bincount(self.place[inside], weights=lost, minlength=self.weeks).astype(np.float64)
        summed[:slot] = np.nan
        return summed

    def loss(self, version: Version, week: int) -> float:
        """Summed log loss of a version on one week."""
        rows = self.place == week
        return float(row_losses("binary", self.labels[rows], self.scores(version, week + 1)[rows]).sum())

    def recalibrated(self, version: Version, slot: int, days: int) -> Version:
        """A version moved to the outcomes that were known at a slot, of rows its weights have not learnt from."""
        since = max(naive(self.slots[slot]) - np.timedelta64(days, "D"), naive(self.cuts[version.learnt]))
        rows = (self.moments >= since) & (self.moments < naive(self.slots[slot]))
        rows &= self.known <= naive(self.slots[slot])
        said = self.weights(version.slot, version.tuned, slot)
        return replace(version, moved=fit_recalibration(self.labels[rows], said[rows]))


@dataclass(frozen=True)
class Moment:
    """What a policy knows when it is asked: the slot, who serves, and what it said itself before."""

    history: History
    slot: int
    champion: Version
    retrains: tuple[int, ...]
    number: int = 1
    """The champion's, counted up with every remedy."""
    checks: tuple[WatchCheck, ...] = ()
    """Newest first."""
    remedies: tuple[tuple[int, Remedy], ...] = ()
    """Slots at which something was done, oldest first."""


@dataclass(frozen=True)
class Asked:
    """A policy's answer."""

    remedy: Remedy | None = None
    alarm: bool = False
    """Because something was seen, not because time had come."""
    check: WatchCheck | None = None


@dataclass(frozen=True)
class Played:
    """One policy's year."""

    versions: tuple[Version, ...]
    """(weeks,) what served each."""
    remedies: tuple[tuple[int, Remedy], ...] = ()
    alarms: tuple[int, ...] = field(default=())
    """Slots at which it alarmed, whether or not that led to a remedy."""

    def at(self, *remedies: Remedy) -> tuple[int, ...]:
        """Slots at which one of these was done."""
        return tuple(slot for slot, remedy in self.remedies if remedy in remedies)

    @property
    def retrains(self) -> tuple[int, ...]:
        """Slots at which a new network was trained."""
        return self.at(*(remedy for remedy in Remedy if remedy.trains_anew))


Policy = Callable[[Moment], Asked]


def play(history: History, policy: Policy, calibration_days: int = 28) -> Played:
    """Ask `policy` at every slot but the first."""
    version = Version(0)
    versions, alarms = [version], []
    remedies: tuple[tuple[int, Remedy], ...] = ()
    checks: tuple[WatchCheck, ...] = ()
    for slot in range(1, history.weeks):
        retrains = Played((), remedies).retrains
        answer = policy(Moment(history, slot, version, retrains, 1 + len(remedies), checks, remedies))
        if answer.check is not None:
            checks = (answer.check, *checks)
        if answer.alarm:
            alarms.append(slot)
        if answer.remedy is not None:
            remedies = (*remedies, (slot, answer.remedy))
            version = cured(history, version, slot, answer.remedy, calibration_days)
        versions.append(version)
    return Played(tuple(versions), remedies, tuple(alarms))


def cured(history: History, version: Version, slot: int, remedy: Remedy, calibration_days: int) -> Version:
    """What serves after a remedy; a search is played as a retrain with the values there are."""
    if remedy == Remedy.RECALIBRATE:
        return history.recalibrated(version, slot, calibration_days)
    if remedy == Remedy.FINE_TUNE:
        return Version(version.slot, (*version.tuned, slot))
    return Version(slot)


def naive(moment: datetime) -> np.datetime64:
    """In UTC, as numpy has it."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
