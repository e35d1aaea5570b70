"""Data faults in a backtest: looked for at every slot as the watch looks for them, and put in on purpose to see them found.

What is put in is `[[backtest.faults]]` of the model's file: rows as they would have come had the feed been broken for a
window. The rules that find it are `monitoring/faults.py`, which know nothing of it. Simplified: answers and outcomes of a
broken window stay as they were, so what a fault does to the model's figures is not played. Called by `tasks/backtest.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from evergreen.errors import SpecError
from evergreen.monitoring.backtest.play import Moment, Played
from evergreen.monitoring.backtest.rehearsals import around
from evergreen.monitoring.faults import find_faults, late_feeds
from evergreen.monitoring.sketch import Kind
from evergreen.spec import InjectedFault
from evergreen.types import Fact, Fault

WINDOWS = 10
"""That each fault is put into, spread evenly over the slots."""
FOUND_AS = {"unit": "unit", "missing": "missing", "late": "late", "renamed": "vanished"}
"""By what is put in, the kind of `Fault` it should be found as."""
Feeds = Callable[[datetime], Mapping[str, Sequence[datetime]]]
"""By table, the moments at which rows of it had become known, as of a moment."""


def no_feeds(_: datetime) -> Mapping[str, Sequence[datetime]]:
    """Where there are no tables but a snapshot alone."""
    return {}


class FaultFigures(Fact):
    """One fault, put into some windows of history."""

    name: str
    windows: int
    caught: int
    """Of the windows, those in which it was named: kind and column, at the first look that holds it."""
    remedies: int
    """Started at those looks; each would have learnt from broken data."""


@dataclass
class Looks:
    """The looks for faults of one play; given to `by_spec`, and afterwards what they saw."""

    rows: pd.DataFrame
    """A snapshot's, sorted by time."""
    inputs: Mapping[str, Kind]
    feeds: Feeds = no_feeds
    put_in: InjectedFault | None = None
    slots: frozenset[int] = frozenset()
    """Looks whose window is broken."""

    def __post_init__(self) -> None:
        self.seen: dict[int, tuple[Fault, ...]] = {}

    def __call__(self, moment: Moment) -> tuple[Fault, ...]:
        """What the watch would have found in the window that ends at a slot."""
        end = moment.history.slots[moment.slot]
        learnt, earlier, window = around(self.rows, moment)
        known = self.feeds(end)
        if self.put_in is not None and moment.slot in self.slots:
            window, known = broken(window, self.put_in, seed=moment.slot), late(known, self.put_in, end)
        found = () if window.empty else find_faults(learnt, earlier, window, self.inputs)
        self.seen[moment.slot] = (*found, *late_feeds(known, end))
        return self.seen[moment.slot]

    def figures(self, played: Played) -> FaultFigures:
        """How the fault that was put in fared in the play of these looks."""
        assert self.put_in is not None
        wanted = FOUND_AS[self.put_in.kind], self.put_in.column
        caught = [
            slot for slot in self.slots if wanted in {(fault.kind, fault.column) for fault in self.seen.get(slot, ())}
        ]
        return FaultFigures(
            name=self.put_in.name,
            windows=len(self.slots),
            caught=len(caught),
            remedies=sum(slot in self.slots for slot, _ in played.remedies),
        )


def some_slots(weeks: int) -> frozenset[int]:
    """Looks that a fault is put before: `WINDOWS` of them, or all where there are no more."""
    return frozenset(np.linspace(1, weeks - 1, min(WINDOWS, weeks - 1)).round().astype(int).tolist())


def broken(window: pd.DataFrame, fault: InjectedFault, seed: int) -> pd.DataFrame:
    """The rows of a window as they would have come."""
    column = fault.column
    if fault.kind == "unit":
        return window.assign(**{column: window[column].astype(np.float64) * fault.scale + fault.offset})
    if fault.kind == "missing":
        lost = np.random.default_rng(seed).random(len(window)) < fault.share
        return window.assign(**{column: window[column].mask(lost)})
    if fault.kind == "renamed":
        return window.assign(**{column: window[column].astype(object).replace(fault.category, fault.becomes)})
    return window


def late(
    known: Mapping[str, Sequence[datetime]], fault: InjectedFault, as_of: datetime
) -> Mapping[str, Sequence[datetime]]:
    """The moments of a table's rows when those of the last hours have not come."""
    if fault.kind != "late":
        return known
    until = as_of - timedelta(hours=fault.hours)
    return {**known, fault.column: [moment for moment in known.get(fault.column, ()) if moment <= until]}


def require_known(faults: Sequence[InjectedFault], inputs: Mapping[str, Kind], tables: Sequence[str]) -> None:
    """Raise `SpecError` where a fault is to be put into a column or a table that there is not."""
    for fault in faults:
        there = sorted(tables if fault.kind == "late" else inputs)
        if fault.column not in there:
            what = "feature table" if fault.kind == "late" else "feature"
            raise SpecError(f"[[backtest.faults]]: {fault.column!r} is no {what}; known: {', '.join(there)}")
