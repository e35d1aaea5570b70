"""Figures agree with scikit-learn's, whole and by slice."""

from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from evergreen.errors import DataError
from evergreen.evaluation import evaluate, score_rows, sound
from evergreen.figures import auc_pulls
from evergreen.types import Evaluation, Task
from tests.factories import a_digest, a_window

# Few distinct scores, so that ties are common.
rows = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=200)


@given(rows.filter(lambda pairs: len({label for label, _ in pairs}) == 2))
def test_the_figures_are_scikit_learns(pairs: list[tuple[bool, int]]) -> None:
    labels = np.array([int(label) for label, _ in pairs])
    scores = np.clip(np.array([score / 20 for _, score in pairs]), 1e-6, 1 - 1e-6)

    found = score_rows(labels, scores)

    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, scores))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(labels, scores))
    assert found["base_rate"] == pytest.approx(labels.mean())
    assert found["mean_score"] == pytest.approx(scores.mean())


def test_calibration_error_is_the_mean_gap_of_ten_bins_by_rows() -> None:
    # Three rows around .2 of which one came true, one row at 1 that did not.
    found = score_rows([1, 0, 0, 0], [0.2, 0.2, 0.2, 1.0])

    assert found["calibration_error"] == pytest.approx((3 * abs(1 / 3 - 0.2) + 1 * 1.0) / 4)


def test_auc_is_left_out_where_only_one_class_is_present() -> None:
    assert "auc" not in score_rows([0, 0], [0.1, 0.2]).figures


def test_a_confident_miss_costs_much_but_not_infinity() -> None:
    assert 16 < score_rows([1], [0.0])["log_loss"] < 17


def an_evaluation(**changed: Any) -> Evaluation:
    arguments: dict[str, Any] = {
        "model": "toy",
        "artifact": a_digest("a"),
        "holdout": a_window(),
        "holdout_digest": a_digest("b"),
        "labels": np.array([1, 0, 1, 0]),
        "scores": np.array([0.9, 0.2, 0.4, 0.6]),
        "days": np.array([date(2013, 5, 1), date(2013, 5, 1), date(2013, 5, 2), date(2013, 5, 3)]),
        "slices": {"origin": np.array(["JFK", "JFK", "LGA", None], dtype=object)},
    }
    return evaluate(**arguments | changed)


def test_every_value_of_a_slice_column_is_scored_by_itself() -> None:
    found = an_evaluation()

    assert list(found.slices) == ["origin=(missing)", "origin=JFK", "origin=LGA"]
    assert found.slices["origin=JFK"].figures == score_rows([1, 0], [0.9, 0.2]).figures
    assert found.overall.figures.items() >= score_rows([1, 0, 1, 0], [0.9, 0.2, 0.4, 0.6]).figures.items()


def test_days_are_counted_once() -> None:
    assert an_evaluation().days == 3


def test_every_day_keeps_its_rows_and_the_sum_of_their_losses() -> None:
    found = an_evaluation()

    assert [(day.day, day.rows) for day in found.overall.by_day] == [
        (date(2013, 5, 1), 2),
        (date(2013, 5, 2), 1),
        (date(2013, 5, 3), 1),
    ]
    assert found.overall.by_day[0].loss_sum == pytest.approx(-np.log(0.9) - np.log(0.8))
    for scores in (found.overall, *found.slices.values()):
        assert sum(day.loss_sum for day in scores.by_day) / scores.rows == pytest.approx(scores["log_loss"])
        assert sum(day.rows for day in scores.by_day) == scores.rows


def test_a_slice_has_only_the_days_it_was_seen_on() -> None:
    assert [day.day for day in an_evaluation().slices["origin=LGA"].by_day] == [date(2013, 5, 2)]


def test_moments_of_a_day_are_that_day() -> None:
    moments = np.array(
        ["2013-05-01T00:00", "2013-05-01T23:59", "2013-05-02T12:00", "2013-05-03T01:00"], "datetime64[ns]"
    )

    assert an_evaluation(days=moments) == an_evaluation()


@given(rows.filter(lambda pairs: len({label for label, _ in pairs}) == 2))
def test_a_rows_pull_on_the_auc_is_its_share_of_the_other_class_on_the_right_side(
    pairs: list[tuple[bool, int]],
) -> None:
    labels = np.array([float(label) for label, _ in pairs])
    scores = np.array([score / 20 for _, score in pairs])
    ones, zeros = scores[labels == 1], scores[labels == 0]

    found = auc_pulls(labels, scores)

    right = (ones[:, None] > zeros[None, :]) + (ones[:, None] == zeros[None, :]) / 2
    assert found[labels == 1] == pytest.approx((right.mean(axis=1) - right.mean()) / len(ones))
    assert found[labels == 0] == pytest.approx((right.mean(axis=0) - right.mean()) / len(zeros))
    assert found.sum() == pytest.approx(0.0, abs=1e-9)


def test_the_days_share_the_pulls_of_their_rows() -> None:
    pulls = auc_pulls(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.2, 0.4, 0.6]))

    assert [day.auc_pull for day in an_evaluation().overall.by_day] == pytest.approx([pulls[:2].sum(), *pulls[2:]])
    assert {day.auc_pull for day in an_evaluation().slices["origin=JFK"].by_day} == {None}
    assert {day.auc_pull for day in an_evaluation(labels=np.array([1, 1, 1, 1])).overall.by_day} == {None}


def test_the_spread_of_the_scores_is_recorded() -> None:
    found = an_evaluation().overall

    assert (found["min_score"], found["max_score"]) == (0.2, 0.9)
    assert found["score_std"] == pytest.approx(np.std([0.9, 0.2, 0.4, 0.6]))


def a_month(shift: float, one_odd_day: float = 0.0) -> dict[str, Any]:
    """28 days of 500 rows; what comes true is `shift` below the scores, on the first day `one_odd_day` more."""
    rng = np.random.default_rng(5)
    place = np.repeat(np.arange(28), 500)
    scores = rng.uniform(0.3, 0.7, len(place))
    chance = scores - shift - one_odd_day * (place == 0)
    return {
        "labels": (rng.random(len(place)) < chance).astype(int),
        "scores": scores,
        "days": np.datetime64("2013-05-01") + place,
        "slices": {},
    }


def test_a_calibration_error_of_every_day_is_sure_and_that_of_one_odd_day_is_not() -> None:
    every = an_evaluation(**a_month(0.1)).overall
    one = an_evaluation(**a_month(0.0, one_odd_day=0.3)).overall

    assert 0.08 < every["calibration_error_low"] <= every["calibration_error"] < 0.11
    assert one["calibration_error_low"] < 0.005


def test_the_same_holdout_gives_the_same_bound_again() -> None:
    assert an_evaluation(**a_month(0.05)) == an_evaluation(**a_month(0.05))


def test_on_one_day_the_calibration_error_is_its_own_bound() -> None:
    found = an_evaluation(days=np.array([date(2013, 5, 1)] * 4)).overall

    assert found["calibration_error_low"] == found["calibration_error"]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"labels": np.array([]), "scores": np.array([]), "slices": {}}, "no rows to score"),
        ({"days": np.array([date(2013, 5, 1)])}, "1 days for 4 rows"),
        ({"scores": np.array([0.5])}, r"\(4,\) labels but \(1,\) scores"),
        ({"labels": np.array([0, 1, 2, 0])}, "labels must be 0 or 1, found 2"),
        ({"scores": np.array([0.5, 0.5, np.nan, 0.5])}, "scores must be probabilities, found nan"),
        ({"scores": np.array([0.5, 0.5, 1.5, 0.5])}, "scores must be probabilities, found 1.5"),
        ({"slices": {"origin": np.array(["JFK"])}}, "slice column 'origin' has 1 values for 4 rows"),
    ],
)
def test_what_cannot_be_scored_is_named(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        an_evaluation(**changed)


@pytest.mark.parametrize(
    ("task", "scores", "mended", "count"),
    [
        ("binary", [0.2, float("nan"), 1.2], [0.2, 0.5, 0.5], 2),
        ("regression", [1.0, float("inf"), 3.0], [1.0, 2.0, 3.0], 1),
        ("regression", [float("nan")], [0.0], 1),
        ("multiclass", [[0.2, 0.8], [float("nan"), 0.5]], [[0.2, 0.8], [0.5, 0.5]], 1),
    ],
)
def test_an_unsound_score_counts_as_a_blind_guess(task: Task, scores: Any, mended: Any, count: int) -> None:
    found, wrong = sound(task, scores)

    assert found.tolist() == mended
    assert wrong == count
