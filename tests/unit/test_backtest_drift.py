"""Drift in a backtest: where the file lets it start anything, it is played as it would run, and counted where nothing drifts."""

from typing import Any

import numpy as np
import pandas as pd

from evergreen.monitoring.backtest.drifting import Drifts
from evergreen.monitoring.backtest.figures import false_alarms
from evergreen.monitoring.backtest.play import Moment, Version, play
from evergreen.monitoring.backtest.policies import by_spec
from evergreen.monitoring.backtest.rehearsals import shuffled
from evergreen.spec import ModelSpec
from tests.unit.test_monitoring_backtest import SPAN, a_spec, history, rows

INPUTS: dict[str, Any] = {"degrees": "numeric", "wind": "numeric"}
MOVES = 5
"""The week from whose beginning on it is warmer."""


def with_weather(*, moves: bool) -> pd.DataFrame:
    """The rows of the other tests with weather that differs from day to day."""
    frame, random = rows(), np.random.default_rng(3)
    day = frame["event_timestamp"].dt.floor("D")
    of_day = {name: random.normal(size=day.nunique())[pd.factorize(day)[0]] for name in INPUTS}
    warmer = 4.0 * (frame["event_timestamp"] >= pd.Timestamp(SPAN.slots[MOVES])) if moves else 0.0
    noise = random.normal(size=(2, len(frame)))
    return frame.assign(degrees=of_day["degrees"] + noise[0] + warmer, wind=of_day["wind"] + noise[1])


def asking(share: float | None) -> ModelSpec:
    return a_spec(min_probe_gain=0.5, max_drift_share=share)


def test_inputs_that_move_retrain_at_the_first_look_where_the_file_says_so() -> None:
    frame = with_weather(moves=True)

    told, shown = (
        play(history(), by_spec(spec, drift=Drifts(frame, INPUTS, spec))) for spec in (asking(0.4), asking(None))
    )

    assert told.retrains[0] == told.alarms[0] == MOVES + 1
    assert shown.retrains == ()


def test_what_moved_is_judged_beside_what_the_champion_learnt() -> None:
    spec = asking(0.4)
    drifts = Drifts(with_weather(moves=True), INPUTS, spec)

    before, after = (drifts(Moment(history(), slot, Version(0), ())) for slot in (MOVES, MOVES + 1))

    assert before is not None
    assert after is not None
    assert (before.share, after.share) == (0.0, 0.5)
    assert (after.window.start, after.window.end) == SPAN.slots[MOVES : MOVES + 2]
    assert after.reference_rows == int((rows()["event_timestamp"] < pd.Timestamp(history().cuts[0])).sum())


def test_where_days_are_shuffled_its_alarms_are_counted_as_false() -> None:
    frame, spec = shuffled(with_weather(moves=False), seed=1), asking(0.4)

    counted = false_alarms([history()], spec, Drifts(frame, INPUTS, spec))
    loud = false_alarms([history()], spec, Drifts(with_weather(moves=True), INPUTS, spec))

    assert counted.alarms == 0
    assert loud.by_rule == {"[monitor].max_drift_share = 0.4": 10 - MOVES - 1}
