import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import DataError
from evergreen.gate import decide
from evergreen.spec import GateConfig
from evergreen.types import Evaluation, Scores
from tests.factories import DAY, MAY, a_window, an_evaluation, some_scores

RULES = GateConfig()


def test_a_sound_candidate_without_a_champion_passes_on_the_absolute_rules_alone() -> None:
    decision = decide(an_evaluation(), None, RULES)

    assert decision.passed
    assert decision.reasons == ()
    assert [check.name for check in decision.checks] == ["enough_rows", "enough_days", "log_loss", "auc", "calibration"]


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
        "calibration": ("[gate].max_calibration_error = 0.15", "calibration error 0.030, at most 0.150 allowed"),
        "not_worse_than_champion": ("[gate].margin = 0.002", "log loss 0.460, champion 0.500, may rise 0.002"),
        "slice origin=JFK": (
            "[gate].max_slice_loss = 0.05 with min_slice_rows = 300",
            "slice origin=JFK: log loss 0.470, champion 0.480, may rise 0.050",
        ),
    }


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (an_evaluation(rows=999), "999 holdout rows, at least 1,000 asked for"),
        (an_evaluation(days=2), "2 holdout days, at least 3 asked for"),
        (an_evaluation(log_loss=0.695), "log loss 0.695, at most 0.690 allowed"),
        (an_evaluation(auc=0.549), "AUC 0.549, at least 0.550 asked for"),
        (an_evaluation(calibration_error=0.151), "calibration error 0.151, at most 0.150 allowed"),
    ],
)
def test_an_absolute_rule_refuses_without_a_champion_too(candidate: Evaluation, reason: str) -> None:
    decision = decide(candidate, None, RULES)

    assert not decision.passed
    assert decision.reasons == (reason,)


def test_rows_of_one_class_prove_no_ranking() -> None:
    figures = {name: figure for name, figure in some_scores().figures.items() if name != "auc"}
    candidate = an_evaluation().model_copy(update={"overall": Scores(rows=5_000, figures=figures)})

    decision = decide(candidate, None, RULES)

    assert decision.reasons == ("the 5,000 holdout rows are all of one class, so they prove no ranking",)


def test_a_candidate_that_is_as_good_as_the_champion_passes() -> None:
    assert decide(an_evaluation(), an_evaluation(), GateConfig(margin=0.0)).passed


def test_a_candidate_that_is_worse_than_the_margin_is_refused_in_figures() -> None:
    decision = decide(an_evaluation(log_loss=0.513), an_evaluation(log_loss=0.510), RULES)

    assert decision.reasons == ("log loss 0.513, champion 0.510, may rise 0.002",)


def test_a_better_average_does_not_excuse_a_worse_slice() -> None:
    champion = an_evaluation(log_loss=0.50, slices={"JFK": 0.48})
    candidate = an_evaluation(log_loss=0.46, slices={"JFK": 0.60})

    decision = decide(candidate, champion, GateConfig(max_slice_loss=0.05))

    assert decision.reasons == ("slice JFK: log loss 0.600, champion 0.480, may rise 0.050",)


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
    decision = decide(
        an_evaluation(log_loss=mine), an_evaluation(log_loss=theirs), GateConfig(margin=margin, max_log_loss=3.0)
    )

    assert decision.passed == (mine - theirs <= margin)
