"""A model's monitoring page says what is on record, and a fault does not look like an alarm."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from evergreen.pages.monitoring import Monitored, render
from evergreen.types import (
    Alarm,
    Cause,
    CensoredPerformance,
    DayPerformance,
    Interval,
    JournalEntry,
    PerformanceEstimate,
    Remedy,
    RetrainRequest,
    SlicePerformance,
    WatchCheck,
    WatchRecord,
    WindowEstimate,
)
from tests.factories import DAY, MAY, a_drift_report, a_performance_report, a_release, a_window, an_alarm

BROKEN = Alarm(trigger=Cause.FAULT, figure=0.4, rule="missing: 0.1", reason="pressure: is missing in 78% of 1,636 rows")


def a_record(week: int, loss: float = 0.5, alarms: Sequence[Alarm] = (), *, retrain: bool = False) -> WatchRecord:
    window = a_window(MAY + week * 7 * DAY)
    interval = Interval(figure=loss, low=loss - 0.02, high=loss + 0.02)
    performance = a_performance_report(window=window).model_copy(
        update={
            "intervals": {"log_loss": interval, "auc": Interval(figure=0.7), "calibration_gap": Interval(figure=-0.03)},
            "by_day": tuple(
                DayPerformance(day=(window.start + d * DAY).date(), rows=130, loss=loss, calibration_gap=0.01 * d)
                for d in range(7)
            ),
            "slices": (SlicePerformance(name="origin=<JFK>", rows=400, figures={"log_loss": interval}),),
        }
    )
    check = WatchCheck(model="flight_delay", version=1, window=window, alarms=tuple(alarms), retrain=retrain)
    return WatchRecord(
        check=check,
        as_of=window.end,
        reasons=("seen & told",),
        performance=performance,
        drift=a_drift_report(window=window),
    )


def an_estimate(week: int, said: float, came: float | None = None) -> WindowEstimate:
    window = a_window(MAY + week * 7 * DAY)
    figures = {"log_loss": Interval(figure=said, low=said - 0.01, high=said + 0.01)}
    return WindowEstimate(
        model="flight_delay",
        version=1,
        window=window,
        as_of=window.end,
        served=1_000,
        labelled=630,
        estimate=PerformanceEstimate(method="CBPE", rows=1_000, calibration_rows=4_000, figures=figures),
        censored=CensoredPerformance(
            rows=900,
            labelled=630,
            min_age_hours=6,
            naive={"log_loss": 0.3111},
            figures={"log_loss": Interval(figure=0.4222)},
        ),
        realised=None if came is None else {"log_loss": came},
        realised_as_of=None if came is None else window.end + DAY,
    )


def a_page(**parts: Any) -> str:
    empty = Monitored(model="flight_delay", task="binary", as_of=MAY + 30 * DAY, records=(), estimates=())
    return render(replace(empty, **parts))


def test_a_model_nobody_looked_at_has_a_page() -> None:
    assert "No window was judged yet" in a_page()


def test_a_fault_looks_different_from_an_alarm() -> None:
    page = a_page(records=[a_record(2, alarms=[BROKEN]), a_record(1, alarms=[an_alarm()]), a_record(0)])

    assert page.count('<rect class="spoilt"') == 6  # three charts, wide and narrow
    assert '<div class="state fault"><b>The data is broken' in page
    assert "tr class=faulty" in page
    assert "tr class=alarmed" in page
    assert "broken data: pressure: is missing in 78% of 1,636 rows" in page
    assert "alarm: mean score 0.090" in page


@pytest.mark.parametrize(
    ("alarms", "retrain", "said"),
    [
        ([], False, '<div class="state quiet"><b>Nothing alarms.</b>'),
        ([], True, '<div class="state quiet"><b>Nothing alarms; asked for, as at every check: fine_tune.</b>'),
        ([an_alarm()], True, '<div class="state alarm"><b>It alarms; asked for: fine_tune.</b>'),
        ([an_alarm()], False, '<div class="state alarm"><b>It alarms; asked for: nothing.</b>'),
    ],
)
def test_the_newest_look_says_what_it_came_to(alarms: list[Alarm], retrain: bool, said: str) -> None:
    record = a_record(0, alarms=alarms, retrain=retrain)
    asked = record.check.model_copy(update={"remedy": Remedy.FINE_TUNE})

    assert said in a_page(records=[record.model_copy(update={"check": asked})])


def test_a_window_with_both_has_both_marks() -> None:
    page = a_page(records=[a_record(0, alarms=[BROKEN, an_alarm()]), a_record(1)])

    chart = page[page.index('aria-label="Log loss') :]
    chart = chart[: chart.index("</svg>")]
    assert chart.count('<rect class="fault"') == 1
    assert chart.count('<path class="alarm"') == 1


def test_what_was_said_stands_beside_what_came_true_with_the_error() -> None:
    page = a_page(records=[a_record(0, 0.48)], estimates=[an_estimate(1, 0.51), an_estimate(0, 0.5, came=0.48)])

    assert "+0.0200" in page
    assert "mean error of the estimate, 1 window" in page
    assert "63%" in page
    assert "0.3111" in page  # by the outcomes that are in
    assert "0.4222" in page  # corrected


def test_a_window_whose_outcomes_are_out_is_drawn_hollow() -> None:
    whole = a_page(records=[a_record(0)], estimates=[an_estimate(0, 0.5, came=0.5)])
    partly = a_page(records=[a_record(0)], estimates=[an_estimate(1, 0.5), an_estimate(0, 0.5, came=0.5)])

    assert whole.count('<circle class="dot corrected"') == 1  # the legend
    assert partly.count('<circle class="dot corrected"') == 3
    assert partly.count('class="band realised"') == whole.count('class="band realised"')


def test_of_a_regression_it_says_that_there_is_no_estimate() -> None:
    said = an_estimate(0, 0.5).model_copy(update={"estimate": None, "unavailable": "a number carries no confidence"})

    assert "No estimate: a number carries no confidence" in a_page(task="regression", estimates=[said])


def test_suppressed_asks_stand_with_their_reason() -> None:
    asked = RetrainRequest(
        request_id="r", model="flight_delay", cause=Cause.DECAY, episode="e", as_of=MAY, status="suppressed",
        reason="the last retrain was 3.0 days before",
    )  # fmt: skip

    page = a_page(requests=[asked])

    assert "the last retrain was 3.0 days before" in page
    assert 'class="badge suppressed"' in page


def test_releases_are_marked_where_they_were_made() -> None:
    entry = JournalEntry(
        model="flight_delay", revision=2, action="promote", actor="roll_out", reason="all checks passed", at=MAY + 3 * DAY,
        before=a_release(champion=1, challenger=2), after=a_release(champion=2, previous=1, revision=2),
    )  # fmt: skip

    entry = entry.model_copy(update={"recorded_at": datetime(2026, 7, 4, 9, 30, tzinfo=UTC)})  # a backdated run

    page = a_page(records=[a_record(1), a_record(0)], journal=[entry])

    assert '<td class="nowrap">4 Jul 2026 09:30</td>' in page
    assert '<circle class="champion"' in page
    assert ">v2</text>" in page
    assert "promoted, version 2 is champion" in page


def test_features_are_ranked_by_drift_times_importance() -> None:
    record = a_record(0)

    alone = a_page(records=[record])
    weighed = a_page(records=[record], importance={"carrier": 0.9, "temperature": 0.0})

    def order(page: str) -> bool:
        part = page[page.index("<h2>Features, by") :]
        return part.index(">temperature<") < part.index(">carrier<")

    assert order(alone)
    assert "importance is not known" in alone
    assert "times importance" in weighed
    assert "0.9000" in weighed


def test_what_comes_from_outside_cannot_become_markup() -> None:
    page = a_page(records=[a_record(0, alarms=[an_alarm().model_copy(update={"reason": "<script>"})])])

    assert "<script>" not in page
    assert "origin=&lt;JFK&gt;" in page
    assert "seen &amp; told" in page


def test_days_that_windows_share_are_drawn_once() -> None:
    one = a_record(0)
    later = a_window(MAY + DAY)
    shifted = one.model_copy(
        update={
            "check": one.check.model_copy(update={"window": later}),
            "performance": one.performance.model_copy(update={"window": later}),
        }
    )

    page = a_page(records=[shifted, one])

    assert page.count(">day 7, ") == 2  # wide and narrow
    assert ">day 8, " not in page
