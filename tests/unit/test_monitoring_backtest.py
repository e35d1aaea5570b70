"""Policies are played on what was known then, share models, and are counted right."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.monitoring.backtest.broken import FaultFigures
from evergreen.monitoring.backtest.figures import (
    FalseAlarms,
    false_alarms,
    lower_share,
    random_gains,
    results,
    shuffled_days,
    upper_share,
)
from evergreen.monitoring.backtest.fit import cheapest_enough, fitted_spec, routines
from evergreen.monitoring.backtest.page import render
from evergreen.monitoring.backtest.play import History, Moment, Version, play
from evergreen.monitoring.backtest.policies import answers, at, by_spec, every, never
from evergreen.monitoring.backtest.rehearsals import Span, cuts, real, shuffled
from evergreen.monitoring.backtest.report import BacktestReport, table
from evergreen.spec import ModelSpec, parse_spec
from evergreen.types import Remedy

FIRST = datetime(2021, 3, 1, tzinfo=UTC)
SPAN = Span(FIRST, FIRST + timedelta(weeks=10), 7)
ROWS_A_DAY = 200


def a_spec(**monitor: Any) -> ModelSpec:
    return parse_spec(
        {
            "model": {"name": "m"},
            "data": {
                "domain": "d", "examples": "e", "event_time": "t", "labels": "l", "label": "y", "feature_service": "s",
            },
            "monitor": {"max_calibration_gap": 1.0, "max_age_days": 400, "min_probe_gain": 0.0, **monitor},
            "retrain": {"cooldown_days": 14},
        }
    )  # fmt: skip


@cache
def rows(drop_week: int | None = None) -> pd.DataFrame:
    """Five weeks, then the ten that are played; from `drop_week` on everything is likelier by 1 in log odds."""
    random = np.random.default_rng(7)
    days = 15 * 7
    day = np.repeat(np.arange(days), ROWS_A_DAY)
    minutes = np.tile(np.arange(ROWS_A_DAY) * 7, days)
    odds = random.normal(-1, 1, size=len(day))
    later = 0.0 if drop_week is None else 1.0 * (day >= (5 + drop_week) * 7)
    moments = pd.Timestamp(FIRST) - pd.Timedelta(weeks=5) + pd.to_timedelta(day, "D") + pd.to_timedelta(minutes, "min")
    return pd.DataFrame(
        {
            "example_id": [f"{n:06d}" for n in range(len(day))],
            "event_timestamp": moments,
            "label_timestamp": moments + pd.to_timedelta(random.uniform(1, 12, size=len(day)), "h"),
            "odds": odds,
            "label": (random.random(len(day)) < 1 / (1 + np.exp(-(odds + later)))).astype(float),
        }
    )


def history(drop_week: int | None = None) -> History:
    """The model of a slot knows the shift once two weeks of it were there to learn from."""
    known = rows(drop_week)

    def scores(slot: int, tuned: tuple[int, ...], _end: int) -> NDArray[np.float64]:
        newest = max(slot, *tuned) if tuned else slot
        learnt = 1.0 if drop_week is not None and newest >= drop_week + 1 else 0.0
        return np.asarray(1 / (1 + np.exp(-(known["odds"].to_numpy() + learnt))))

    return real(known, SPAN, scores)


def seconds(_slot: int, _tuned: tuple[int, ...]) -> float:
    return 2.0


def test_the_calendars_policies_retrain_by_the_calendar() -> None:
    played = {name: play(history(), policy) for name, policy in (("n", never), ("w", every(1)), ("4", every(4)))}

    assert [version.slot for version in played["n"].versions] == [0] * 10
    assert [version.slot for version in played["w"].versions] == list(range(10))
    assert played["4"].retrains == (4, 8)


def test_a_model_that_rots_is_replaced_soon_and_only_then() -> None:
    played = play(history(drop_week=4), by_spec(a_spec()))

    assert played.retrains
    assert played.retrains[0] in (5, 6)
    assert len(played.retrains) <= 2


def test_where_nothing_drifts_nothing_is_retrained() -> None:
    assert play(history(), by_spec(a_spec(min_probe_gain=0.002))).alarms == ()


def test_age_retrains_and_is_no_alarm() -> None:
    played = play(history(), by_spec(a_spec(max_age_days=27, min_probe_gain=0.5)))

    assert played.retrains == (4, 8)
    assert played.alarms == ()


def test_a_policy_sees_no_outcome_before_it_came() -> None:
    seen = answers(Moment(history(), 3, Version(0), ()), a_spec())

    as_of = pd.Timestamp(SPAN.slots[3])
    assert seen["event_timestamp"].max() < as_of
    assert (seen["label_timestamp"].dropna() <= as_of).all()
    assert 0 < seen["label"].isna().sum() < ROWS_A_DAY
    assert seen["event_timestamp"].min() >= pd.Timestamp(FIRST)  # before that the champion answered nothing


def test_a_slots_model_is_trained_on_rows_whose_outcomes_were_in() -> None:
    frame = rows()
    [cut] = cuts(frame, SPAN.slots[2:3])

    before = frame[frame["event_timestamp"] < pd.Timestamp(cut)]
    assert (before["label_timestamp"] < pd.Timestamp(SPAN.slots[2])).all()
    assert cut > SPAN.slots[2] - timedelta(hours=13)


def test_figures_are_shares_of_weekly_retrainings_gain() -> None:
    past = history(drop_week=4)
    played = {"never": play(past, never), "weekly": play(past, every(1)), "once": play(past, at([5]))}

    found = {one.name: one for one in results({name: (past, one, seconds) for name, one in played.items()})}

    assert found["never"].gain_share == 0.0
    assert found["weekly"].gain_share == 1.0
    assert found["once"].gain_share == pytest.approx(1.0)  # every later model is the same one
    assert found["once"].seconds == 4.0
    assert found["never"].regret > found["once"].regret == pytest.approx(0.0)
    rows_played = past.rows
    assert np.average(found["once"].curve, weights=rows_played) == pytest.approx(found["once"].log_loss)


def bounds_of(losses: NDArray[np.float64]) -> tuple[float, float]:
    return float(losses[0].sum()), float(np.diagonal(losses).sum())


def test_random_policies_gain_less_than_the_one_that_was_right() -> None:
    past = history(drop_week=4)
    losses = np.stack([past.losses(slot) for slot in range(past.weeks)])

    gains = random_gains(losses, retrains=1, draws=200, seed=0, bounds=bounds_of(losses))

    assert gains.max() == pytest.approx(1.0)
    assert np.median(gains) < 0.9
    assert (gains == random_gains(losses, retrains=1, draws=200, seed=0, bounds=bounds_of(losses))).all()


def test_shuffling_moves_whole_days_and_keeps_each() -> None:
    moments = rows()["event_timestamp"].to_numpy(dtype="datetime64[us]")

    moved = moments + shuffled_days(moments, seed=3)

    day = moved.astype("datetime64[D]")
    assert (np.unique(day) == np.unique(moments.astype("datetime64[D]"))).all()
    assert ((moved - day) == (moments - moments.astype("datetime64[D]"))).all()
    assert len(np.unique((moved - moments)[: 5 * ROWS_A_DAY])) > 1


def copies(drop_week: int | None, count: int = 4) -> list[History]:
    """Their models know nothing of a shift, newer ones as little as the first."""

    def copy(seed: int) -> History:
        dealt = shuffled(rows(drop_week), seed)
        said = np.asarray(1 / (1 + np.exp(-dealt["odds"].to_numpy())))
        return real(dealt, SPAN, lambda _slot, _tuned, _end: said)

    return [copy(seed) for seed in range(count)]


def test_a_challenger_that_knows_more_is_an_alarm_and_where_nothing_is_new_there_is_none() -> None:
    for kind in ("retrain", "fine_tune"):
        spec = a_spec(challenger=kind, min_challenger_gain=0.002, min_probe_gain=0.5)
        rotten, sound = (play(history(week), by_spec(spec)) for week in (4, None))

        # In the week after the shift the newest model has not seen it either; the week after that it has.
        assert rotten.alarms[0] == 6
        assert rotten.retrains[0] == 6
        assert sound.alarms == ()
        assert false_alarms(copies(None), spec).alarms == 0


def test_on_shuffled_copies_alarms_are_counted_and_nothing_is_retrained() -> None:
    quiet = false_alarms(copies(None), a_spec(min_probe_gain=0.002))
    loud = false_alarms(copies(None), a_spec(min_probe_gain=0.002, max_calibration_gap=1e-6, max_age_days=1))

    assert quiet.weeks == loud.weeks == 4 * 9
    assert quiet.alarms <= 1
    assert loud.alarms == loud.by_rule["[monitor].max_calibration_gap = 1e-06"] == 4 * 9
    assert not any("max_age_days" in rule for rule in loud.by_rule)


def test_the_smallest_gain_within_the_budget_is_chosen() -> None:
    wrong = copies(drop_week=-5)  # everything is likelier than the first models say: any small gain alarms every week
    sound = copies(None)

    kept = fitted_spec(a_spec(), [(a_spec(), 1.0)], wrong, (0.0, 0.001))
    wide = parse_spec(a_spec().model_dump() | {"backtest": {"weeks_per_false_alarm": 4}})
    found = fitted_spec(wide, [(wide, 1.0)], sound, (0.002, 0.5))

    assert kept.monitor.min_probe_gain is None  # no gain was quiet enough
    assert kept.monitor.max_age_days == 49  # at most 15% of the weeks
    assert found.monitor.min_probe_gain == 0.002


def test_a_fitted_spec_has_no_alarm_that_was_not_fitted() -> None:
    own = a_spec(max_log_loss_rise=1e-6, max_estimated_rise=1e-6, max_drift_share=0.0, max_unlearnt_share=1e-6)

    found = fitted_spec(own, [(own, 1.0)], copies(None), (0.0, 0.002, 0.5))

    assert found == fitted_spec(a_spec(), [(a_spec(), 1.0)], copies(None), (0.0, 0.002, 0.5))


def test_the_upper_bound_is_clopper_and_pearsons() -> None:
    assert upper_share(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert upper_share(5, 5) == 1.0


def test_a_span_without_two_windows_is_refused() -> None:
    with pytest.raises(DataError, match="no two windows"):
        _ = Span(FIRST, FIRST + timedelta(days=13), 7).slots


def test_the_page_shows_every_policy_and_what_thresholds_were_fitted_on() -> None:
    past, spec = history(drop_week=4), a_spec()
    losses = np.stack([past.losses(slot) for slot in range(past.weeks)])
    played = {"never": play(past, never), "weekly": play(past, every(1)), "fitted": play(past, by_spec(spec))}
    found = results({name: (past, one, seconds) for name, one in played.items()})
    report = BacktestReport.of(
        spec,
        spec,
        found,
        dict.fromkeys(("alone", "between"), random_gains(losses, 1, 50, 0, bounds_of(losses))),
        {"fitted": FalseAlarms(1, 100, {"[monitor].a_rule = 1": 1})},
        slots=SPAN.slots,
        fitted_on=(FIRST - timedelta(weeks=5), FIRST),
        faults=(FaultFigures(name="wind: <lost>", windows=10, caught=9, remedies=0),),
        unbroken={1: (), 2: ()},
    )

    shown = table(report)
    assert BacktestReport.model_validate_json(report.model_dump_json()) == report
    assert [line.split("|")[1].strip() for line in shown.splitlines()[2:5]] == ["never", "weekly", "fitted"]
    assert "0.26 (" in shown
    assert str(report.fitted_on) in shown
    shown = render(report)
    assert shown.count("<polyline") == 4  # never and the fitted one, wide and narrow
    assert "wind: &lt;lost&gt;" in shown
    assert "9 of 10" in shown
    assert "in the 100 shuffled weeks, fitted: [monitor].a_rule = 1 in 1" in shown
    assert "In 2 looks at the data as it came, called broken: nothing." in shown


def test_a_cheap_remedy_serves_on_between_retrains() -> None:
    past = history(drop_week=4)

    tuned = play(past, at([5], between=Remedy.FINE_TUNE))
    moved = play(past, every(1, Remedy.RECALIBRATE))

    assert tuned.retrains == (5,)
    assert tuned.versions[7] == Version(5, (6, 7))
    assert len(tuned.at(Remedy.FINE_TUNE)) == 8
    assert all(version.slot == 0 and version.tuned == () for version in moved.versions)
    assert moved.versions[9].moved.intercept == pytest.approx(1.0, abs=0.3)


def test_a_recalibration_is_fitted_on_outcomes_that_were_known_and_not_learnt_from() -> None:
    past = history(drop_week=4)

    soon = past.recalibrated(Version(6), 6, 28)
    later = past.recalibrated(Version(0), 6, 7)

    assert abs(soon.moved.intercept) < 0.2  # of its own past it has learnt all, and of what came since there is nothing
    assert later.moved.intercept == pytest.approx(1.0, abs=0.4)


def test_a_routine_that_is_enough_is_taken_before_a_dearer_one() -> None:
    tried = routines(a_spec())

    def chosen(*losses: float) -> tuple[Remedy | None, int, int]:
        remedy = cheapest_enough(list(zip(tried, losses, strict=True))).remedy
        return remedy.routine, remedy.tune_days, remedy.tune_epochs

    assert chosen(100, 101, 102, 103, 104, 105) == (None, 28, 1)
    assert chosen(100, 91, 90, 90, 90, 90) == (Remedy.RECALIBRATE, 28, 1)
    assert chosen(100, 98, 90.5, 90, 90, 90) == (Remedy.FINE_TUNE, 28, 1)
    assert chosen(100, 98, 95, 93, 90.5, 90) == (Remedy.FINE_TUNE, 56, 1)
    assert chosen(100, 98, 95, 93, 92, 90) == (Remedy.FINE_TUNE, 56, 2)


def test_the_routine_is_done_at_every_check_and_is_no_alarm() -> None:
    spec = a_spec(max_age_days=27, min_probe_gain=0.5)
    routine = spec.model_copy(update={"remedy": spec.remedy.model_copy(update={"routine": Remedy.FINE_TUNE})})

    played = play(history(drop_week=4), by_spec(routine))

    assert played.alarms == ()
    assert played.retrains == (4, 8)
    assert len(played.at(Remedy.FINE_TUNE)) == 7


def test_the_lower_bound_is_the_mirror_of_the_upper_one() -> None:
    assert lower_share(0, 50) == 0.0
    assert lower_share(50, 50) == pytest.approx(0.05 ** (1 / 50))
    assert lower_share(7, 100) == pytest.approx(1 - upper_share(93, 100))
