"""What Prometheus reads of the watch, from the tables."""

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session

from evergreen.adapters.drift_checks import DriftChecks
from evergreen.adapters.estimates import WindowEstimates
from evergreen.adapters.monitoring_metrics import monitoring_metrics
from evergreen.adapters.releases import ReleaseStore
from evergreen.adapters.watch_history import WatchHistory
from evergreen.types import Alarm, Cause, Interval, PerformanceEstimate, WindowEstimate
from tests.databases import database_url, engine, postgres_url, session
from tests.factories import (
    DAY,
    MAY,
    a_drift_report,
    a_performance_report,
    a_release,
    a_retrain_decision,
    a_window,
    an_alarm,
)

NOW = MAY + 15 * DAY


def exported(session: Session) -> dict[tuple[str, str], float]:
    """(name, the label that is not the model) → value."""
    page = monitoring_metrics(WatchHistory(session), WindowEstimates(session), ReleaseStore(session), NOW).decode()
    return {
        (
            sample.name.removeprefix("evergreen_monitoring_"),
            next((v for k, v in sample.labels.items() if k != "model"), ""),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def look(session: Session, week: int, alarms: tuple[Alarm, ...]) -> None:
    window = a_window(MAY + week * 7 * DAY)
    decision = a_retrain_decision(retrain=False, as_of=window.end + timedelta(hours=2), alarms=alarms)
    DriftChecks(session).record(decision, a_drift_report(window=window), a_performance_report(window=window))


def test_where_nothing_was_looked_at_nothing_is_exported(session: Session) -> None:
    assert exported(session) == {}


def test_the_newest_look_and_the_newest_estimate_are_exported(session: Session) -> None:
    broken = Alarm(trigger=Cause.FAULT, figure=0.4, rule="missing: 0.1", reason="wind is missing")
    look(session, 0, (an_alarm(Cause.DECAY),))
    look(session, 1, (an_alarm(Cause.DRIFT), broken, broken))
    estimates = WindowEstimates(session)
    for week, loss in ((0, 0.52), (1, 0.47)):
        window = a_window(MAY + week * 7 * DAY)
        estimates.record(
            WindowEstimate(
                model="flight_delay", version=1, window=window, as_of=window.end, served=1_000, labelled=640,
                estimate=PerformanceEstimate(
                    method="CBPE", rows=1_000, calibration_rows=0, figures={"log_loss": Interval(figure=loss)}
                ),
            )
        )  # fmt: skip
    estimates.reconcile("flight_delay", 1, a_window(), {"log_loss": 0.5}, MAY + 8 * DAY)
    releases = ReleaseStore(session)
    for revision, (champion, day) in enumerate(((1, 0), (2, 5), (2, 9)), start=1):
        release = a_release(champion=champion, revision=revision, changed_at=MAY + day * DAY)
        before = revision - 1 or None
        releases.save(release, expected_revision=before, action="a", actor="t", reason="r", at=release.changed_at)

    found = exported(session)

    assert found == {
        ("realised_loss", "log_loss"): 0.5,
        ("estimated_loss", "log_loss"): 0.47,
        ("estimate_error", "log_loss"): pytest.approx(0.02),
        ("calibration_gap", ""): 0.09,
        ("label_share", ""): 0.64,
        ("drift_share", ""): 0.5,
        ("alarm", "drift"): 1,
        ("alarm", "decay"): 0,
        ("alarm", "age"): 0,
        ("faults_open", ""): 2,
        ("champion_age_seconds", ""): 10 * 86_400,
        ("last_watch_timestamp_seconds", ""): (MAY + 14 * DAY + timedelta(hours=2)).timestamp(),
    }


def test_a_figure_that_is_not_known_has_no_line(session: Session) -> None:
    window = a_window()
    report = a_performance_report(window=window, labelled=0)
    DriftChecks(session).record(a_retrain_decision(retrain=False, as_of=window.end), None, report)

    found = exported(session)

    assert {name for name, _ in found} == {"alarm", "faults_open", "last_watch_timestamp_seconds"}
