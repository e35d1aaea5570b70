"""Drift in a backtest: judged at every slot as the watch judges it, so that it is known how often it alarms for nothing.

Only where `[monitor].max_drift_share` lets drift start anything: each verdict permutes the days of all rows so far. Evidently's
own distances decide nothing and are not drawn. Called by `tasks/plays.py`, for the year as it was and for its shuffled copies.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from evergreen.monitoring.backtest.play import Moment
from evergreen.monitoring.backtest.rehearsals import around
from evergreen.monitoring.drift import drift_verdict
from evergreen.monitoring.sketch import Kind
from evergreen.spec import ModelSpec
from evergreen.types import DriftReport, Window


@dataclass(frozen=True)
class Drifts:
    """The verdicts of one play; given to `by_spec`."""

    rows: pd.DataFrame
    """A snapshot's, sorted by time."""
    inputs: Mapping[str, Kind]
    spec: ModelSpec

    def __call__(self, moment: Moment) -> DriftReport | None:
        """What the watch would have said of the window that ends at a slot; None where nobody asks or nothing came before."""
        if self.spec.monitor.max_drift_share is None:
            return None
        learnt, _, window = around(self.rows, moment)
        verdict = drift_verdict(learnt, window, self.inputs, self.spec.monitor, self.spec.train.seed)
        if verdict is None:
            return None
        start, end = moment.history.slots[moment.slot - 1 : moment.slot + 1]
        return DriftReport(
            model=self.spec.name,
            window=Window(start=start, end=end),
            reference=Window(start=learnt["event_timestamp"].iloc[0].to_pydatetime(), end=start),
            rows=len(window),
            reference_rows=len(learnt),
            features=(),
            uri="",
            verdict=verdict,
        )
