import re
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from evergreen.errors import DataError
from evergreen.gate import RULES as ALL_RULES
from evergreen.gate import Evidence, decide
from evergreen.spec import GateConfig
from evergreen.types import (
    Attribution,
    Baseline,
    Baselines,
    Check,
    DayLoss,
    Evaluation,
    FeatureImportance,
    Scores,
)
from tests.factories import DAY, MAY, a_window, an_evaluation, some_days, some_scores, some_scores_of_numbers

RULES = GateConfig()


def with_figures(evaluation: Evaluation, **figures: float) -> Evaluation:
    """The same days, other figures."""
    overall = evaluation.overall
    return evaluation.model_copy(update={"overall": overall.model_copy(update={"figures": overall.figures | figures})})


def test_a_sound_candidate_without_a_champion_passes_on_the_absolute_rules_alone() -> None:
    decision = decide(an_evaluation(), None, RULES)

    assert decision.passed
    assert decision.reasons == ()
    assert [check.name for check in decision.checks] == [
        "enough_rows",
        "enough_days",
        "log_loss",
        "auc",
        "calibration",
        "scores_spread",
    ]


def test_every_check_says_its_figure_its_rule_and_its_reason_also_when_it_holds() -> None:
    champion = an_evaluation(slices={"origin=JFK": 0.48})
    decision = decide(an_evaluation(log_loss=0.46, slices={"origin=JFK": 0.47}), champion, RULES)

    told = {check.name: (check.rule, check.reason) for check in decision.checks}

    assert decision.passed
    assert told == {
        "enough_rows": ("[gate].min_rows = 1,000", "5,000 holdout rows, at least 1,000 asked for"),
        "enough_days": ("[gate].min_days = 3", "7 holdout days, at least 3 asked for"),
        "log_loss": ("[gate].max_log_loss = 0.69", "log loss 0.460, at most 0.690 allowed"),
        "auc": ("[gate].min_auc = 0.55", "AUC 0.750, at least 0.550 asked for"),
        "calibration": (
            "[gate].max_calibration_error = 0.15",
            "calibration error 0.030, proved to be at least 0.030, at most 0.150 allowed",
        ),
        "scores_spread": (
            "[gate].min_score_std = 0.01",
            "scores from 0.010 to 0.950 with standard deviation 0.150, at least 0.010 asked for",
        ),
        "not_worse_than_champion": (
            "[gate].margin = 0.01 with confidence = 0.9",
            "log loss 0.460, champion 0.500: change -0.0400, with 90% confidence at most -0.0400, may rise 0.0100",
        ),
        "slice origin=JFK": (
            "[gate].max_slice_loss = 0.05 with confidence = 0.9 (Holm), min_slice_rows = 300",
            "slice origin=JFK: log loss 0.470, champion 0.480, may rise 0.050; that it rises is not proved (p 1.000)",
        ),
    }


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (an_evaluation(rows=999), "999 holdout rows, at least 1,000 asked for"),
        (an_evaluation(days=2), "2 holdout days, at least 3 asked for"),
        (an_evaluation(log_loss=0.695), "log loss 0.695, at most 0.690 allowed"),
        (an_evaluation(auc=0.549), "AUC 0.549, at least 0.550 asked for"),
        (
            an_evaluation(calibration_error=0.151),
            "calibration error 0.151, proved to be at least 0.151, at most 0.150 allowed",
        ),
        (
            with_figures(an_evaluation(), score_std=0.004),
            "scores from 0.010 to 0.950 with standard deviation 0.004, at least 0.010 asked for",
        ),
    ],
)
def test_an_absolute_rule_refuses_without_a_champion_too(candidate: Evaluation, reason: str) -> None:
    decision = decide(candidate, None, RULES)

    assert not decision.passed
    assert decision.reasons == (reason,)


def test_rows_of_one_class_prove_no_ranking() -> None:
    overall = an_evaluation().overall
    figures = {name: figure for name, figure in overall.figures.items() if name != "auc"}
    candidate = an_evaluation().model_copy(update={"overall": overall.model_copy(update={"figures": figures})})

    decision = decide(candidate, None, RULES)

    assert decision.reasons == ("the 5,000 holdout rows are all of one class, so they prove no ranking",)


def test_a_candidate_that_is_as_good_as_the_champion_passes() -> None:
    assert decide(an_evaluation(), an_evaluation(), GateConfig(margin=0.0)).passed


def test_a_candidate_that_is_worse_than_the_margin_is_refused_in_figures() -> None:
    decision = decide(an_evaluation(log_loss=0.523), an_evaluation(log_loss=0.510), RULES)

    assert decision.reasons == (
        "log loss 0.523, champion 0.510: change +0.0130, with 90% confidence at most +0.0130, may rise 0.0100",
    )


def test_a_better_average_does_not_excuse_a_worse_slice() -> None:
    champion = an_evaluation(log_loss=0.50, slices={"JFK": 0.48})
    candidate = an_evaluation(log_loss=0.46, slices={"JFK": 0.60})

    decision = decide(candidate, champion, GateConfig(max_slice_loss=0.05))

    assert decision.reasons == (
        "slice JFK: log loss 0.600, champion 0.480, may rise 0.050; that it rises is proved (p < 0.001)",
    )


def test_a_slice_of_few_rows_is_not_judged() -> None:
    champion = an_evaluation(slices={"carrier=OO": some_scores(299, log_loss=0.1)})
    candidate = an_evaluation(slices={"carrier=OO": some_scores(299, log_loss=9.9)})

    assert decide(candidate, champion, RULES).passed


def test_a_slice_of_just_enough_rows_is_judged() -> None:
    champion = an_evaluation(slices={"carrier=OO": some_scores(300, log_loss=0.1)})
    candidate = an_evaluation(slices={"carrier=OO": some_scores(300, log_loss=9.9)})

    assert not decide(candidate, champion, RULES).passed


def test_all_that_is_wrong_is_said_at_once() -> None:
    decision = decide(an_evaluation(rows=10, days=1, log_loss=0.9, auc=0.5), an_evaluation(rows=10, days=1), RULES)

    assert len(decision.reasons) == 5


@pytest.mark.parametrize(
    "champion",
    [
        an_evaluation(holdout_digest="b"),
        an_evaluation(holdout=a_window(MAY - 7 * DAY)),
        an_evaluation(rows=4_999),
    ],
    ids=["other content", "other window", "other number of rows"],
)
def test_figures_of_different_rows_are_never_compared(champion: Evaluation) -> None:
    with pytest.raises(DataError, match="compares two models on the same rows"):
        decide(an_evaluation(), champion, RULES)


@pytest.mark.parametrize("slices", [{}, {"JFK": some_scores(400)}])
def test_a_slice_the_candidate_was_not_scored_on_is_an_error_not_a_pass(slices: dict[str, Scores]) -> None:
    with pytest.raises(DataError, match="slice JFK"):
        decide(an_evaluation(slices=slices), an_evaluation(slices={"JFK": 0.5}), RULES)


@given(candidate=st.floats(0.0, 2.0), better_by=st.floats(0.0, 2.0), champion=st.floats(0.0, 2.0))
def test_a_better_candidate_is_never_refused_where_a_worse_one_passes(
    candidate: float, better_by: float, champion: float
) -> None:
    rival = an_evaluation(log_loss=champion)
    worse_passes = decide(an_evaluation(log_loss=candidate), rival, RULES).passed
    better_passes = decide(an_evaluation(log_loss=max(candidate - better_by, 0.0)), rival, RULES).passed

    assert better_passes or not worse_passes


@given(mine=st.floats(0.0, 2.0), theirs=st.floats(0.0, 2.0), margin=st.floats(0.0, 0.5))
def test_the_margin_is_kept_to_the_figure(mine: float, theirs: float, margin: float) -> None:
    assume(abs(mine - theirs - margin) > 1e-9)  # sums of a day's losses round
    decision = decide(
        an_evaluation(log_loss=mine), an_evaluation(log_loss=theirs), GateConfig(margin=margin, max_log_loss=3.0)
    )

    assert decision.passed == (mine - theirs <= margin)


def by_day(changes: Sequence[float], loss: float = 0.50) -> Scores:
    """1,000 rows a day, whose loss differs from `loss` by each of `changes`."""
    days = tuple(
        DayLoss(day=(MAY + n * DAY).date(), rows=1_000, loss_sum=1_000 * (loss + change))
        for n, change in enumerate(changes)
    )
    mean = sum(day.loss_sum for day in days) / (1_000 * len(days))
    return some_scores(1_000 * len(days), log_loss=mean, calibration_error_low=0.0).model_copy(update={"by_day": days})


def a_rival(changes: Sequence[float], slices: Mapping[str, Scores] | None = None) -> Evaluation:
    """Of days that differ, overall; slices as given."""
    overall = by_day(changes)
    return an_evaluation().model_copy(update={"overall": overall, "days": len(changes), "slices": dict(slices or {})})


def test_a_rise_below_the_margin_that_days_contradict_each_other_on_is_not_non_inferior() -> None:
    champion, candidate = a_rival([0.0] * 8), a_rival([0.04, -0.04, 0.05, -0.03, 0.02, -0.05, 0.03, -0.01])

    decision = decide(candidate, champion, RULES)

    assert decision.reasons == (
        "log loss 0.501, champion 0.500: change +0.0013, with 90% confidence at most +0.0206, may rise 0.0100",
    )
    assert decide(candidate, champion, GateConfig(margin=0.021)).passed


def test_the_bound_is_the_t_interval_of_the_days() -> None:
    changes = [0.004, -0.002, 0.001, -0.006, 0.003, -0.001, 0.000]
    check = decide(a_rival(changes), a_rival([0.0] * 7), RULES).checks[-1]

    expected = stats.ttest_1samp(changes, 0.0, alternative="less").confidence_interval(0.9).high

    assert check.figure == pytest.approx(expected)


def test_superiority_is_asked_for_only_where_the_spec_says_so() -> None:
    champion, candidate = a_rival([0.0] * 4), a_rival([0.001, -0.002, 0.001, -0.001])
    rules = GateConfig(superiority=True)

    assert decide(candidate, champion, RULES).passed
    assert decide(candidate, champion, rules).reasons == (
        "log loss 0.500, champion 0.500: change -0.0003, with 90% confidence at most +0.0010, must fall",
    )
    assert decide(a_rival([-0.03, -0.02, -0.03, -0.02]), champion, rules).passed


def test_one_day_proves_nothing() -> None:
    check = decide(a_rival([-0.2]), a_rival([0.0]), GateConfig(min_days=1)).checks[-1]

    assert not check.passed
    assert check.reason == (
        "log loss 0.300, champion 0.500: change -0.2000, of which one day says no bound, may rise 0.0100"
    )


def test_a_slice_that_rose_on_one_odd_day_alone_is_not_refused() -> None:
    odd, steady = by_day([0.0] * 6 + [0.6]), by_day([0.06, 0.09, 0.08, 0.1, 0.07, 0.09, 0.11])
    champion = a_rival([0.0] * 7, {"JFK": by_day([0.0] * 7)})

    assert decide(a_rival([0.0] * 7, {"JFK": odd}), champion, RULES).passed
    assert not decide(a_rival([0.0] * 7, {"JFK": steady}), champion, RULES).passed


def test_the_more_slices_are_judged_the_clearer_a_rise_must_be() -> None:
    worse, same = by_day([0.02, 0.12, 0.05, 0.13, -0.03, 0.14, 0.01]), by_day([0.0] * 7)  # p 0.02 by itself

    def refused(others: int) -> bool:
        names = ["JFK", *(f"other {n}" for n in range(others))]
        candidate = a_rival([0.0] * 7, {name: worse if name == "JFK" else same for name in names})
        return not decide(candidate, a_rival([0.0] * 7, dict.fromkeys(names, same)), RULES).passed

    assert [refused(others) for others in (0, 2, 20)] == [True, True, False]


def champion_that_learnt(days_into_the_holdout: float) -> Evaluation:
    return an_evaluation().model_copy(update={"learnt_until": MAY + days_into_the_holdout * DAY})


def test_a_champion_that_has_not_learnt_from_the_rows_that_judge_is_told_so() -> None:
    decision = decide(an_evaluation(), champion_that_learnt(0), RULES)

    assert decision.passed
    (check,) = [check for check in decision.checks if check.name == "champion_unseen"]
    assert (
        check.reason
        == "the champion learnt from rows before 2013-05-01 00:00, and the rows that judge begin at 2013-05-01 00:00"
    )


@pytest.mark.parametrize(("days", "seen"), [(0.5, 1), (2, 2), (9, 7)])
def test_a_champion_that_has_learnt_from_rows_that_judge_is_no_measure(days: float, seen: int) -> None:
    decision = decide(an_evaluation(log_loss=0.4), champion_that_learnt(days), RULES)

    (reason,) = decision.reasons
    assert f"so it has learnt from {seen} of the 7 days that judge" in reason
    assert reason.endswith(
        f"Retrain with an as_of of {MAY + (7 + days) * DAY:%Y-%m-%d %H:%M} or later, or lower [train].holdout_days"
    )


def with_pulls(evaluation: Evaluation, pulls: Sequence[float]) -> Evaluation:
    overall = evaluation.overall
    by_day = [day.model_copy(update={"auc_pull": pull}) for day, pull in zip(overall.by_day, pulls, strict=True)]
    return evaluation.model_copy(update={"overall": overall.model_copy(update={"by_day": tuple(by_day)})})


def test_a_fall_of_the_auc_is_shown_and_decides_only_where_the_spec_says_so() -> None:
    champion = with_pulls(an_evaluation(auc=0.75), [0.0] * 7)
    candidate = with_pulls(an_evaluation(auc=0.74), [0.003, -0.002, 0.001, -0.004, 0.002, -0.001, 0.001])

    shown = decide(candidate, champion, RULES).checks[-1]

    assert shown.passed
    assert shown.rule == "[gate].max_auc_drop unset: decides nothing"
    assert shown.reason == "AUC 0.740, champion 0.750: change -0.0100, with 90% confidence at least -0.0193"
    assert decide(candidate, champion, GateConfig(max_auc_drop=0.02)).passed
    assert decide(candidate, champion, GateConfig(max_auc_drop=0.015)).reasons == (f"{shown.reason}, may fall 0.0150",)


def test_a_constant_is_refused_however_good_its_loss() -> None:
    decision = decide(with_figures(an_evaluation(), score_std=0.0, min_score=0.2, max_score=0.2), None, RULES)

    assert decision.reasons == ("scores from 0.200 to 0.200 with standard deviation 0.000, at least 0.010 asked for",)
    assert not decide(
        with_figures(an_evaluation(), score_std=0.0, min_score=0.2, max_score=0.2), None, GateConfig(min_score_std=0.0)
    ).passed


def test_a_calibration_error_that_the_days_explain_is_not_refused() -> None:
    assert decide(with_figures(an_evaluation(), calibration_error=0.2, calibration_error_low=0.1), None, RULES).passed


def beside(margin: float | None = None, **losses: float) -> tuple[Baselines, GateConfig]:
    tried = tuple(
        Baseline(name=name, evaluation=an_evaluation(log_loss=loss), note="") for name, loss in losses.items()
    )
    return Baselines(tried=tried), GateConfig(baseline_margin=margin)


def baseline_check(candidate: Evaluation, baselines: Baselines, rules: GateConfig) -> Check | None:
    checks = decide(candidate, None, rules, baselines).checks
    return next((check for check in checks if check.name == "baseline"), None)


def test_a_network_that_is_worse_than_plain_trees_is_told_so_and_passes_while_nothing_is_asked() -> None:
    check = baseline_check(an_evaluation(log_loss=0.52), *beside(logistic=0.51, LightGBM=0.49))

    assert check is not None
    assert check.passed
    assert check.rule == "[gate].baseline_margin unset: decides nothing"
    assert check.reason == "log loss 0.520, LightGBM 0.490: change +0.0300, with 90% confidence at most +0.0300"


def test_where_it_is_asked_a_network_must_stand_beside_the_best_of_them() -> None:
    baselines, rules = beside(0.01, logistic=0.51, LightGBM=0.49)

    refused, passed = (decide(an_evaluation(log_loss=loss), None, rules, baselines) for loss in (0.505, 0.495))

    assert refused.reasons == (
        "log loss 0.505, LightGBM 0.490: change +0.0150, with 90% confidence at most +0.0150, may be 0.0100 above",
    )
    assert passed.passed


def test_asked_for_and_not_trained_nothing_is_shown() -> None:
    untrained = Baselines(tried=(Baseline(name="LightGBM", evaluation=None, note="not installed"),))

    decision = decide(an_evaluation(), None, GateConfig(baseline_margin=0.01), untrained)

    assert decision.reasons == ("no baseline was trained, so nothing shows that the candidate earns its place",)
    assert baseline_check(an_evaluation(), untrained, RULES) is None


def test_a_baseline_of_other_rows_is_no_baseline() -> None:
    other = Baseline(name="LightGBM", evaluation=an_evaluation(holdout_digest="e"), note="")

    with pytest.raises(DataError, match="Score the LightGBM again"):
        decide(an_evaluation(), None, RULES, Baselines(tried=(other,)))


@given(
    candidate=st.floats(0.3, 0.6),
    losses=st.lists(st.floats(0.3, 0.6), min_size=1, max_size=4),
    margin=st.floats(0, 0.2),
)
def test_a_further_baseline_never_lets_a_candidate_through(
    candidate: float, losses: list[float], margin: float
) -> None:
    def passed(count: int) -> bool:
        check = baseline_check(
            an_evaluation(log_loss=candidate), *beside(margin, **{f"b{i}": x for i, x in enumerate(losses[:count])})
        )
        assert check is not None
        return check.passed

    verdicts = [passed(count) for count in range(1, len(losses) + 1)]

    assert verdicts == sorted(verdicts, reverse=True)
    assert verdicts[-1] == (candidate - min(losses) <= margin) or candidate - min(losses) == pytest.approx(margin)


def a_regression(*, slices: Mapping[str, Scores] | None = None, **figures: float) -> Evaluation:
    """A model that says minutes, every day alike."""
    overall = some_days(some_scores_of_numbers(5_000, **figures), 7)
    return an_evaluation().model_copy(
        update={"overall": overall, "slices": {name: some_days(scores, 7) for name, scores in (slices or {}).items()}}
    )


def test_a_regression_is_judged_by_rules_of_its_own_and_speaks_of_its_own_loss() -> None:
    champion = a_regression(slices={"origin=JFK": some_scores_of_numbers(1_000, mse=380.0)})
    candidate = a_regression(slices={"origin=JFK": some_scores_of_numbers(1_000, mse=390.0)}, mse=398.0)

    decision = decide(candidate, champion, RULES)

    assert decision.passed
    assert {check.name: check.reason for check in decision.checks} == {
        "enough_rows": "5,000 holdout rows, at least 1,000 asked for",
        "enough_days": "7 holdout days, at least 3 asked for",
        "r2": "R² 0.360, at least 0.000 asked for",
        "calibration": "calibration error 0.030, proved to be at least 0.030, at most 0.150 allowed",
        "scores_spread": "scores from -20.000 to 95.000 with standard deviation 0.560 of the label's, "
        "at least 0.010 asked for",
        "not_worse_than_champion": "squared error 398, champion 400: change -2, with 90% confidence at most -2, may rise 4",
        "slice origin=JFK": "slice origin=JFK: squared error 390, champion 380, may rise 19; that it rises is proved "
        "(p < 0.001)",
    }


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (a_regression(mse=404.1), "squared error 404.1, champion 400: change .4.1, .* may rise 4"),
        (a_regression(r2=-0.01), "R² -0.010, at least 0.000 asked for"),
        (a_regression(calibration_error=0.2, calibration_error_low=0.16), "proved to be at least 0.160"),
        (a_regression(score_std=0.2), "with standard deviation 0.008 of the label's"),
        (a_regression(min_score=9.0, max_score=9.0), "scores from 9.000 to 9.000"),
    ],
)
def test_a_regression_is_refused_with_its_reason(candidate: Evaluation, reason: str) -> None:
    decision = decide(candidate, a_regression(), RULES)

    assert len(decision.reasons) == 1
    assert re.search(reason, decision.reasons[0])


def test_labels_that_are_all_equal_prove_nothing() -> None:
    overall = a_regression().overall
    figures = {name: value for name, value in overall.figures.items() if name != "r2"} | {"label_std": 0.0}
    candidate = a_regression().model_copy(update={"overall": overall.model_copy(update={"figures": figures})})

    assert "are all equal, so they prove nothing" in decide(candidate, None, RULES).reasons[0]


@given(unit=st.floats(1e-3, 1e6), rise=st.floats(0.0, 0.02))
def test_a_regressions_verdict_does_not_depend_on_the_labels_unit(unit: float, rise: float) -> None:
    assume(abs(rise - RULES.margin) > 1e-6)
    sizes = {"bias": 1, "mean_score": 1, "label_std": 1, "score_std": 1, "min_score": 1, "max_score": 1, "mse": 2}
    fair = some_scores_of_numbers().figures

    def measured(mse: float) -> Evaluation:
        figures = fair | {"mse": mse}
        scaled = figures | {name: figures[name] * unit**power for name, power in sizes.items()}
        overall = some_days(Scores(rows=5_000, task="regression", figures=scaled), 7)
        return an_evaluation().model_copy(update={"overall": overall})

    decision = decide(measured(400.0 * (1 + rise)), measured(400.0), RULES)

    assert decision.passed == (rise < RULES.margin)


def test_of_more_classes_a_blind_guess_loses_more_and_that_much_is_allowed() -> None:
    coin = decide(with_figures(an_evaluation(log_loss=0.70), classes=2.0), None, RULES)
    die = decide(with_figures(an_evaluation(log_loss=0.70), classes=6.0), None, RULES)

    assert coin.reasons == ("log loss 0.700, at most 0.690 allowed",)
    assert die.passed
    assert [check.rule for check in die.checks if check.name == "log_loss"] == ["[gate].max_log_loss = 1.784"]


def whole_weeks(evidence: Evidence) -> Iterator[Check]:
    days = evidence.candidate.days
    yield Check(
        name="whole_weeks",
        passed=days % 7 == 0,
        figure=days,
        rule="weekdays differ",
        reason=f"{days} holdout days, whole weeks asked for",
    )


@pytest.mark.parametrize(("days", "reasons"), [(14, ()), (10, ("10 holdout days, whole weeks asked for",))])
def test_a_rule_is_one_function(days: int, reasons: tuple[str, ...]) -> None:
    decision = decide(an_evaluation(days=days), None, RULES, rules=(*ALL_RULES, whole_weeks))

    assert decision.checks[-1].name == "whole_weeks"
    assert decision.reasons == reasons


def test_rows_without_an_answer_are_a_refusal_with_a_reason() -> None:
    candidate = an_evaluation().model_copy(update={"unsound_scores": 3})

    assert decide(candidate, None, RULES).reasons == ("3 of 5,000 holdout rows got no number or no probability",)


def test_one_feature_that_carries_nearly_all_is_refused_where_the_file_bounds_it() -> None:
    features = (FeatureImportance(feature="tailnum", rise=0.9), FeatureImportance(feature="wind", rise=0.1))
    found = Attribution(features=features, rows=2_000, days=7, loss=0.5, seed=1)
    candidate = an_evaluation().model_copy(update={"attribution": found})

    assert decide(candidate, None, RULES).checks[-1].rule == "[gate].max_feature_share unset: decides nothing"
    assert decide(candidate, None, GateConfig(max_feature_share=0.8)).reasons == (
        "of what all features are worth: tailnum 90%, wind 10%; one may carry at most 80%",
    )
