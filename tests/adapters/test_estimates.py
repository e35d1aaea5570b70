"""What was said of a window stands; what came true is written beside it. On SQLite and on Postgres."""

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from evergreen.adapters.drift_checks import DriftChecks
from evergreen.adapters.estimates import WindowEstimates
from evergreen.adapters.watch_history import WatchHistory
from evergreen.types import Interval, PerformanceEstimate, WindowEstimate
from tests.databases import database_url, engine, postgres_url, session
from tests.factories import DAY, MAY, a_drift_report, a_performance_report, a_retrain_decision, a_window


def an_estimate(log_loss: float = 0.5, *, version: int = 1, weeks: int = 0, as_of_days: int = 7) -> WindowEstimate:
    return WindowEstimate(
        model="flight_delay",
        version=version,
        window=a_window(MAY + weeks * 7 * DAY),
        as_of=MAY + (weeks * 7 + as_of_days) * DAY,
        served=1_000,
        labelled=400,
        estimate=PerformanceEstimate(
            method="CBPE",
            rows=1_000,
            calibration_rows=5_000,
            figures={"log_loss": Interval(figure=log_loss, low=log_loss - 0.02, high=log_loss + 0.02)},
        ),
    )


def test_what_was_said_first_of_a_window_stands(session: Session) -> None:
    estimates = WindowEstimates(session)

    assert estimates.record(an_estimate(0.50))
    assert not estimates.record(an_estimate(0.44, as_of_days=9))

    assert estimates.history("flight_delay", 10) == [an_estimate(0.50)]


def test_what_came_true_stands_beside_it_with_the_error(session: Session) -> None:
    estimates = WindowEstimates(session)
    estimates.record(an_estimate(0.50))
    estimates.record(an_estimate(0.70, version=2))

    estimates.reconcile("flight_delay", 1, a_window(), {"log_loss": 0.46, "auc": 0.7}, MAY + 9 * DAY)

    other, found = estimates.history("flight_delay", 10)
    assert found.realised == {"log_loss": 0.46, "auc": 0.7}
    assert found.realised_as_of == MAY + 9 * DAY
    assert found.errors == {"log_loss": pytest.approx(0.04)}
    assert (other.realised, other.errors) == (None, {})


def test_more_outcomes_replace_what_came_true_and_fewer_do_not(session: Session) -> None:
    estimates = WindowEstimates(session)
    estimates.record(an_estimate())

    for loss, day in ((0.46, 9), (0.47, 10), (0.40, 8)):  # the last one asks again about an earlier moment
        estimates.reconcile("flight_delay", 1, a_window(), {"log_loss": loss}, MAY + day * DAY)

    assert estimates.history("flight_delay", 1)[0].realised == {"log_loss": 0.47}


def test_history_is_newest_first_and_ends_where_it_is_told_to(session: Session) -> None:
    estimates = WindowEstimates(session)
    for weeks in (1, 0, 2):
        estimates.record(an_estimate(weeks=weeks))

    def starts(limit: int, **rest: object) -> list[int]:
        return [(one.window.start - MAY).days // 7 for one in estimates.history("flight_delay", limit, **rest)]  # type: ignore[arg-type]

    assert starts(10) == [2, 1, 0]
    assert starts(2) == [2, 1]
    assert starts(10, before=MAY + 14 * DAY) == [1, 0]
    assert estimates.history("another", 10) == []


def test_past_looks_come_back_with_all_they_saw(session: Session) -> None:
    checks, history = DriftChecks(session), WatchHistory(session)
    windows = [a_window(MAY + weeks * 7 * DAY) for weeks in (0, 1)]
    for window in windows:
        decision = a_retrain_decision(as_of=window.end + timedelta(hours=1))
        checks.record(decision, a_drift_report(window=window), a_performance_report(window=window))

    newest, oldest = history.records("flight_delay", 10)

    assert [newest.check.window, oldest.check.window] == windows[::-1]
    assert newest.performance == a_performance_report(window=windows[1])
    assert newest.drift == a_drift_report(window=windows[1])
    assert newest.reasons == a_retrain_decision(as_of=newest.as_of).reasons
    assert history.records("flight_delay", 1) == [newest]
    assert history.records("flight_delay", 10, before=windows[0].end) == [oldest]
    assert history.models() == ["flight_delay"]
