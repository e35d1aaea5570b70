"""When is it time for a successor, and to which episode does an alarm belong?"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import SpecError
from evergreen.monitoring.policy import decide
from evergreen.spec import ModelSpec, parse_spec
from evergreen.types import (
    Cause,
    ChallengerReport,
    DriftReport,
    DriftVerdict,
    Evaluation,
    Fault,
    FeatureDrift,
    FeatureShift,
    Interval,
    PerformanceEstimate,
    PerformanceReport,
    ProbeReport,
    Remedy,
    RetrainDecision,
    Scores,
    WatchCheck,
    Window,
)

FIRST = datetime(2013, 4, 8, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64


def check_of(decision: RetrainDecision, performance: PerformanceReport) -> WatchCheck:
    """What later checks need to know of this one."""
    return WatchCheck(
        model=decision.model,
        version=performance.version,
        window=performance.window,
        alarms=decision.alarms,
        retrain=decision.retrain,
        episode=decision.episode,
        remedy=decision.remedy,
    )


def a_spec(*, cooldown_days: float = 14, **monitor: Any) -> ModelSpec:
    return parse_spec(
        {
            "model": {"name": "flight_delay"},
            "data": {
                "domain": "flights",
                "examples": "flights",
                "event_time": "scheduled_departure",
                "labels": "flight_outcomes",
                "label": "late",
                "feature_service": "flight_delay",
            },
            "monitor": {"max_calibration_gap": 0.06, "max_log_loss_rise": 0.08, "max_age_days": 56, **monitor},
            "retrain": {"cooldown_days": cooldown_days},
        }
    )


def week(number: int) -> Window:
    end = FIRST + timedelta(weeks=number)
    return Window(start=end - timedelta(days=7), end=end)


def scores(log_loss: float) -> Scores:
    return Scores(rows=6_000, figures={"log_loss": log_loss})


def served(
    gap: float = 0.0, log_loss: float = 0.45, *, number: int = 0, version: int = 1, days: int = 7
) -> PerformanceReport:
    return PerformanceReport(
        model="flight_delay",
        version=version,
        window=week(number),
        served=6_000,
        labelled=5_800,
        scores=scores(log_loss),
        calibration_gap=gap,
        days=days,
    )


def drifted(count: int, of: int = 10) -> DriftReport:
    return DriftReport(
        model="flight_delay",
        window=week(0),
        reference=Window(start=FIRST - timedelta(days=90), end=FIRST - timedelta(days=7)),
        rows=2_000,
        reference_rows=2_000,
        features=tuple(
            FeatureDrift(feature=f"f{i}", method="wasserstein", score=0.3, threshold=0.1, drifted=i < count)
            for i in range(of)
        ),
        uri="drift.html",
    )


def look(
    performance: PerformanceReport,
    spec: ModelSpec | None = None,
    *,
    history: Sequence[WatchCheck] = (),
    drift: DriftReport | None = None,
    age_days: float = 10,
    faults: Sequence[Fault] = (),
    challenger: ChallengerReport | None = None,
) -> RetrainDecision:
    as_of = performance.window.end + timedelta(hours=6)
    return decide(
        spec=spec or a_spec(),
        as_of=as_of,
        performance=performance,
        drift=drift,
        champion_evaluation=Evaluation(
            model="flight_delay",
            artifact=DIGEST,
            holdout=week(-1),
            holdout_digest=DIGEST,
            days=7,
            overall=scores(0.44),
        ),
        trained_until=as_of - timedelta(days=age_days),
        history=history,
        faults=faults,
        challenger=challenger,
    )


def watch(performances: Sequence[PerformanceReport], spec: ModelSpec | None = None) -> list[RetrainDecision]:
    """Look at one window after the other, each with the looks before it."""
    history: list[WatchCheck] = []
    decisions = []
    for performance in performances:
        decision = look(performance, spec, history=history)
        decisions.append(decision)
        history.insert(0, check_of(decision, performance))
    return decisions


def test_nothing_alarms_and_the_decision_still_says_why_not() -> None:
    decision = look(served(gap=0.012), drift=drifted(9))

    assert not decision.retrain
    assert decision.episode is None
    assert decision.reasons == (
        "nothing alarms",
        "calibration gap 0.012 (scores too high), may be 0.060",
        "log loss 0.450, 0.440 at the gate, may rise 0.080",
        "version 1 was trained on rows until 10 days ago, may be 56",
        "9 of 10 features drifted; shown only, [monitor].max_drift_share is not set",
    )


@pytest.mark.parametrize("gap", [0.09, -0.09])
def test_a_calibration_gap_on_either_side_alarms(gap: float) -> None:
    decision = look(served(gap=gap))

    assert decision.retrain
    assert [alarm.trigger for alarm in decision.alarms] == [Cause.DECAY]
    assert decision.alarms[0].figure == pytest.approx(0.09)
    assert decision.alarms[0].rule == "[monitor].max_calibration_gap = 0.06"
    assert decision.reasons[0] == decision.alarms[0].reason


def test_a_log_loss_above_the_gates_alarms_and_a_better_one_never_does() -> None:
    assert [alarm.trigger for alarm in look(served(log_loss=0.53)).alarms] == [Cause.DECAY]
    assert not look(served(log_loss=0.01)).alarms


def test_a_champion_that_is_too_old_alarms_whatever_its_figures() -> None:
    decision = look(served(), age_days=57)

    assert [alarm.trigger for alarm in decision.alarms] == [Cause.AGE]
    assert decision.retrain


def test_drift_alarms_only_where_the_spec_asks_for_it() -> None:
    assert not look(served(), a_spec(), drift=drifted(10)).alarms
    assert [a.trigger for a in look(served(), a_spec(max_drift_share=0.5), drift=drifted(6)).alarms] == [Cause.DRIFT]
    assert not look(served(), a_spec(max_drift_share=0.5), drift=drifted(5)).alarms


def test_every_trigger_that_fires_is_named() -> None:
    decision = look(served(gap=0.1, log_loss=0.6), a_spec(max_drift_share=0.1), drift=drifted(5), age_days=100)

    assert [alarm.trigger for alarm in decision.alarms] == [Cause.DECAY, Cause.DECAY, Cause.AGE, Cause.DRIFT]


def test_labels_that_are_not_in_yet_silence_the_labelled_triggers_and_say_so() -> None:
    waiting = served(gap=0.5).model_copy(update={"labelled": 100, "scores": None, "calibration_gap": None})

    decision = look(waiting)

    assert not decision.alarms
    assert "100 of 6,000 answers have outcomes, [monitor].min_label_share asks for 80%" in decision.reasons[1]
    assert look(waiting, age_days=57).retrain, "age needs no labels"


def test_a_champion_of_yesterday_is_not_judged_on_one_day() -> None:
    decision = look(served(gap=0.5, days=1))

    assert not decision.alarms
    assert decision.reasons[1] == "labelled figures wait: outcomes on 1 days, judged from 3.5 on"


def test_persistence_waits_for_windows_in_a_row() -> None:
    first, second, third = watch([served(gap=0.1, number=n) for n in range(3)], a_spec(persistence=2))

    assert (first.retrain, second.retrain, third.retrain) == (False, True, True)
    assert first.alarms
    assert "1 window in a row alarmed, [monitor].persistence asks for 2" in first.reasons


def test_a_quiet_window_starts_the_count_again() -> None:
    gaps = [0.1, 0.0, 0.1, 0.1]

    decisions = watch([served(gap=gap, number=n) for n, gap in enumerate(gaps)], a_spec(persistence=2))

    assert [decision.retrain for decision in decisions] == [False, False, False, True]


def test_the_same_window_looked_at_twice_counts_once() -> None:
    again = watch([served(gap=0.1), served(gap=0.1)], a_spec(persistence=2))

    assert [decision.retrain for decision in again] == [False, False]
    assert again[0] == again[1]


def test_a_replay_of_an_old_window_does_not_see_later_ones() -> None:
    later = check_of(look(served(gap=0.1, number=3)), served(gap=0.1, number=3))

    assert look(served(gap=0.1), history=[later]) == look(served(gap=0.1))


def test_a_stretch_has_one_episode_until_the_cooldown_is_over() -> None:
    decisions = watch([served(gap=0.1, number=n) for n in range(5)], a_spec(cooldown_days=14))

    assert [decision.episode for decision in decisions] == [
        "flight_delay:v1:2013-04-08",
        "flight_delay:v1:2013-04-08",
        "flight_delay:v1:2013-04-22",
        "flight_delay:v1:2013-04-22",
        "flight_delay:v1:2013-05-06",
    ]


def test_a_quiet_window_ends_an_episode() -> None:
    decisions = watch([served(gap=gap, number=n) for n, gap in enumerate([0.1, 0.0, 0.1])], a_spec(cooldown_days=60))

    assert [d.episode for d in decisions] == ["flight_delay:v1:2013-04-08", None, "flight_delay:v1:2013-04-22"]


def test_a_new_champion_ends_an_episode_and_the_count() -> None:
    rotten = [served(gap=0.1, number=0), served(gap=0.1, number=1, version=2)]

    decisions = watch(rotten, a_spec(cooldown_days=60, persistence=2))

    assert [d.episode for d in decisions] == ["flight_delay:v1:2013-04-08", "flight_delay:v2:2013-04-15"]
    assert not any(d.retrain for d in decisions)


def test_a_history_cut_short_does_not_rename_the_episode() -> None:
    spec = a_spec(cooldown_days=60)
    history = [
        check_of(d, served(gap=0.1, number=n))
        for n, d in enumerate(watch([served(gap=0.1, number=n) for n in range(4)], spec))
    ][::-1]

    whole, cut = (look(served(gap=0.1, number=4), spec, history=seen) for seen in (history, history[:1]))

    assert whole.episode == cut.episode == "flight_delay:v1:2013-04-08"


GAPS = st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=30)


@given(gaps=GAPS, persistence=st.integers(1, 4), cooldown_days=st.integers(0, 40))
def test_no_alarm_no_retrain_and_no_episode(gaps: list[float], persistence: int, cooldown_days: int) -> None:
    spec = a_spec(persistence=persistence, cooldown_days=cooldown_days)

    for decision in watch([served(gap=gap, number=n) for n, gap in enumerate(gaps)], spec):
        assert decision.reasons
        assert (decision.episode is None) == (not decision.alarms)
        assert decision.alarms or not decision.retrain


@given(gaps=GAPS, cooldown_days=st.integers(0, 40))
def test_an_episode_is_one_stretch_no_longer_than_the_cooldown(gaps: list[float], cooldown_days: int) -> None:
    decisions = watch([served(gap=g, number=n) for n, g in enumerate(gaps)], a_spec(cooldown_days=cooldown_days))

    weeks_of: dict[str, list[int]] = {}
    for number, decision in enumerate(decisions):
        if decision.episode is not None:
            weeks_of.setdefault(decision.episode, []).append(number)
    for weeks in weeks_of.values():
        assert weeks == list(range(weeks[0], weeks[-1] + 1)), "an episode has no quiet window in it"
        assert 7 * (weeks[-1] - weeks[0]) < max(cooldown_days, 1)


@given(gaps=GAPS)
def test_within_one_cooldown_a_stretch_has_at_most_one_episode(gaps: list[float]) -> None:
    decisions = watch([served(gap=g, number=n) for n, g in enumerate(gaps)], a_spec(cooldown_days=1_000))

    stretches = 1 + sum(a.episode is None for a in decisions)
    assert len({d.episode for d in decisions} - {None}) <= stretches
    for before, after in pairwise(decisions):
        assert before.episode is None or after.episode in (None, before.episode)


@given(
    gap=st.floats(-0.5, 0.5),
    log_loss=st.floats(0.0, 2.0),
    age=st.floats(0, 200),
    drift=st.integers(0, 10),
    limits=st.tuples(st.floats(0.01, 0.5), st.floats(0.01, 1.0), st.integers(1, 200), st.floats(0.0, 1.0)),
    slack=st.floats(0.0, 1.0),
)
def test_looser_thresholds_never_alarm_more(
    gap: float, log_loss: float, age: float, drift: int, limits: tuple[float, float, int, float], slack: float
) -> None:
    keys = ("max_calibration_gap", "max_log_loss_rise", "max_age_days", "max_drift_share")
    tight = dict(zip(keys, limits, strict=True))
    loose = {
        "max_calibration_gap": limits[0] + slack,
        "max_log_loss_rise": limits[1] + slack,
        "max_age_days": limits[2] + round(slack * 100),
        "max_drift_share": min(1.0, limits[3] + slack),
    }
    strict, lenient = (
        look(served(gap=gap, log_loss=log_loss), a_spec(**limit), drift=drifted(drift), age_days=age)
        for limit in (tight, loose)
    )

    def rules(decision: RetrainDecision) -> set[str]:
        return {alarm.rule.split(" = ")[0] for alarm in decision.alarms}

    assert rules(lenient) <= rules(strict)
    assert strict.retrain or not lenient.retrain


@given(gaps=GAPS, persistence=st.integers(1, 5))
def test_asking_for_more_persistence_never_retrains_sooner(gaps: list[float], persistence: int) -> None:
    performances = [served(gap=g, number=n) for n, g in enumerate(gaps)]

    eager, patient = (watch(performances, a_spec(persistence=p)) for p in (persistence, persistence + 1))

    assert all(e.retrain or not p.retrain for e, p in zip(eager, patient, strict=True))


def a_fault() -> Fault:
    return Fault(
        kind="unit", column="temperature", since=FIRST, figure=40.0, limit=17.0, reason="temperature: its mean jumps"
    )


def test_broken_data_holds_back_what_else_would_retrain() -> None:
    decision = look(served(gap=0.2), age_days=100, faults=[a_fault()])

    assert not decision.retrain
    assert decision.episode is None
    assert decision.reasons[:2] == ("held back: the data is broken", "temperature: its mean jumps")
    assert [alarm.trigger for alarm in decision.alarms] == [Cause.FAULT, Cause.DECAY, Cause.AGE]


def test_windows_of_broken_data_neither_continue_nor_break_a_stretch() -> None:
    spec = a_spec(persistence=2, cooldown_days=30)
    first = served(gap=0.2, number=0)
    broken = served(gap=0.2, number=1)
    before = check_of(look(first, spec), first)
    faulty = check_of(look(broken, spec, history=[before], faults=[a_fault()]), broken)

    decision = look(served(gap=0.2, number=2), spec, history=[faulty, before])

    assert decision.retrain
    assert decision.episode == before.episode


def test_k_of_the_last_n_windows_and_the_newest_ask() -> None:
    spec = a_spec(persistence=2, persistence_of=3)
    decisions = watch([served(gap=gap, number=n) for n, gap in enumerate([0.2, 0.0, 0.2, 0.0])], spec)

    assert [decision.retrain for decision in decisions] == [False, False, True, False]
    assert (
        "2 of the newest 3 windows alarmed, this one among them, [monitor].persistence asks for 2"
        in decisions[2].reasons
    )


def test_a_gain_of_recalibration_that_is_sure_alarms() -> None:
    probe = ProbeReport(slope=1.0, intercept=0.5, fitted_rows=20_000, gain=0.03, gain_low=0.012, days=7)
    measured = served().model_copy(update={"probe": probe})

    shown, alarmed = look(measured), look(measured, a_spec(min_probe_gain=0.01))

    assert not shown.alarms
    assert [alarm.rule for alarm in alarmed.alarms] == ["[monitor].min_probe_gain = 0.01"]


def test_a_challengers_gain_alarms_only_by_its_lower_bound_and_where_the_spec_asks() -> None:
    known = {"learnt_until": FIRST, "rows": 5_000, "days": 7, "cpu_seconds": 3.0}
    clear, chance = (ChallengerReport(kind="retrain", gain=0.02, gain_low=low, **known) for low in (0.011, -0.002))
    asked = a_spec(challenger="retrain", min_challenger_gain=0.01)

    assert [alarm.rule for alarm in look(served(), asked, challenger=clear).alarms] == [
        "[monitor].min_challenger_gain = 0.01"
    ]
    assert not look(served(), asked, challenger=chance).alarms
    assert not look(served(), a_spec(challenger="retrain"), challenger=clear).alarms
    assert "no challenger was made" in " ".join(look(served(), asked).reasons)
    with pytest.raises(SpecError, match="min_challenger_gain needs a challenger"):
        a_spec(min_challenger_gain=0.01)


def test_the_calibrated_verdict_decides_on_drift_where_there_is_one() -> None:
    shift = FeatureShift(
        feature="f", distance=0.1, usual_distance=0.2, p_value=0.4, adjusted_p_value=0.9, drifted=False
    )
    verdict = DriftVerdict(
        days=7, reference_days=90, p_value=0.4, level=0.05, block_days=1, permutations=999, seed=1, features=(shift,)
    )
    spec = a_spec(max_drift_share=0.5)

    assert look(served(), spec, drift=drifted(9)).alarms
    assert not look(served(), spec, drift=drifted(9).model_copy(update={"verdict": verdict})).alarms


def test_the_routine_is_asked_for_once_a_window_and_needs_no_alarm() -> None:
    spec = parse_spec(a_spec().model_dump() | {"remedy": {"routine": "fine_tune"}})

    calm, again = look(served(), spec), look(served(), spec)
    alarmed = look(served(gap=0.1), spec)

    assert calm.retrain
    assert (calm.remedy, calm.cause, calm.alarms) == (Remedy.FINE_TUNE, Cause.SCHEDULE, ())
    assert calm.episode == again.episode == "flight_delay:v1:fine_tune:2013-04-08"
    assert look(served(number=1), spec).episode != calm.episode
    assert (alarmed.remedy, alarmed.cause) == (Remedy.RETRAIN, Cause.DECAY)


def test_an_alarm_gets_no_less_than_the_routine_and_the_next_one_climbs() -> None:
    spec = parse_spec(a_spec().model_dump() | {"remedy": {"first": "recalibrate", "routine": "fine_tune"}})
    tuned = parse_spec(
        a_spec().model_dump() | {"remedy": {"first": "fine_tune", "last": "fine_tune", "routine": "fine_tune"}}
    )

    alarmed = look(served(gap=0.1), spec)
    still = look(served(number=1, gap=0.1), spec, history=[check_of(alarmed, served())])

    assert alarmed.alarmed
    assert (alarmed.remedy, alarmed.episode) == (Remedy.FINE_TUNE, look(served(), spec).episode)
    assert "recalibrate: the rung that" in " ".join(alarmed.reasons)
    assert (still.remedy, still.routine) == (Remedy.RETRAIN, False)
    # Where the ladder ends with the routine, each window has its own.
    episodes = {look(served(number=n, gap=0.1), tuned, history=[check_of(alarmed, served())]).episode for n in (1, 2)}
    assert len(episodes) == 2


def test_broken_data_holds_the_routine_back_too() -> None:
    spec = parse_spec(a_spec().model_dump() | {"remedy": {"routine": "fine_tune"}})
    fault = Fault(kind="missing", column="wind", since=FIRST, figure=0.4, limit=0.1, reason="wind: is missing")

    assert not look(served(), spec, faults=[fault]).retrain


def test_much_new_data_asks_for_a_retrain_where_the_spec_says_so() -> None:
    def decided(share: float | None, **monitor: float) -> RetrainDecision:
        return decide(
            spec=a_spec(**monitor), as_of=FIRST, performance=served(), drift=None,
            champion_evaluation=Evaluation(
                model="flight_delay", artifact=DIGEST, holdout=week(-1), holdout_digest=DIGEST, days=7, overall=scores(0.45)
            ),
            trained_until=FIRST - timedelta(days=10), history=(), unlearnt_share=share,
        )  # fmt: skip

    found = decided(0.6, max_unlearnt_share=0.5)

    assert found.retrain
    assert found.cause is Cause.VOLUME
    assert "60% of those it learnt from, may be 50%" in found.alarms[0].reason
    assert not decided(0.4, max_unlearnt_share=0.5).retrain
    assert not decided(9.0).retrain
    assert not decided(None, max_unlearnt_share=0.5).retrain


def test_decay_that_is_estimated_without_outcomes_alarms_where_the_spec_says_so() -> None:
    def estimated(figure: float, low: float) -> PerformanceReport:
        figures = {"log_loss": Interval(figure=figure, low=low, high=figure + 0.1)}
        estimate = PerformanceEstimate(method="CBPE", rows=6_000, calibration_rows=9_000, figures=figures)
        return served().model_copy(update={"scores": None, "calibration_gap": None, "estimate": estimate})

    spec = a_spec(max_estimated_rise=0.05)
    risen, unsure = look(estimated(0.60, 0.56), spec), look(estimated(0.60, 0.48), spec)

    assert risen.retrain
    assert risen.cause is Cause.DECAY
    assert "log loss estimated without outcomes 0.6000 (0.5600 to 0.7000), 0.4400 at the gate" in risen.reasons[0]
    assert not unsure.retrain
    assert not look(estimated(0.60, 0.56)).retrain
